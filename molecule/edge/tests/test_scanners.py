"""What scanners that everybody may run find: nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent


def test_gixy_finds_nothing(app1):
    dump = app1.check_output("nginx -T 2>/dev/null")
    done = subprocess.run([BIN / "gixy", "-f", "json", "-"], input=dump, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert found == []


def test_sslyze_finds_what_mozilla_calls_intermediate(lab, tmp_path):
    report = tmp_path / "sslyze.json"
    target = f"{lab['edge_name']}:443{{{lab['edge_address']}}}"
    options = ["--mozilla_config", "intermediate", "--certinfo_ca_file", lab["ca"], "--json_out", report]
    done = subprocess.run(
        [BIN / "sslyze", *options, target],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Not compliant" not in done.stdout, done.stdout
    assert "Compliant" in done.stdout, done.stdout
    scan = json.loads(report.read_text())["server_scan_results"][0]
    assert scan["scan_status"] == "COMPLETED"
    results = {name: entry.get("result") for name, entry in scan["scan_result"].items()}
    for old in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        assert results[f"{old}_cipher_suites"]["accepted_cipher_suites"] == []
    for new in ("tls_1_2", "tls_1_3"):
        assert results[f"{new}_cipher_suites"]["accepted_cipher_suites"]
    assert results["heartbleed"]["is_vulnerable_to_heartbleed"] is False
    assert results["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"] is False
    assert results["robot"]["robot_result"].startswith("NOT_VULNERABLE")
    assert results["tls_compression"]["supports_compression"] is False
    assert results["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"] is False
    assert results["tls_fallback_scsv"]["supports_fallback_scsv"] is True
