"""What scanners that everybody may run find: nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
# Side by side, as most of a scan is waiting. Left out, as they find nothing that others do not: a list of all ciphers
# (-E; sslyze tries each), which clients could connect (-c), and how odd handshakes are borne (-g).
SECTIONS = {"first": "-p -f -S", "second": "-s -P -h -U"}
# What testssl.sh puts above "low" here, and why it may stay. Nothing else is let through.
KNOWN = {
    "cert_chain_of_trust": "the lab's certificate is of an authority that no browser knows",
    "cert_revocation": "the lab's authority has no list of revoked certificates and no responder",
    "BREACH": "answers are compressed (nginx_compress_answers): Django masks its tokens, and its cookies are SameSite",
    # What it warns that it could not ask.
    "engine_problem": "GOST's ciphers, which the scanner's OpenSSL has not",
    "secure_renego": "its OpenSSL gets no handshake for this one; sslyze asks it",
    "sessionresumption_ticket": "there are no tickets for TLS 1.2",
}


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
    assert results["session_renegotiation"]["supports_secure_renegotiation"] is True
    assert results["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"] is False
    assert results["tls_fallback_scsv"]["supports_fallback_scsv"] is True


@pytest.fixture(scope="module")
def scanner(lab):
    """A container of its own beside the hosts, with Debian's testssl.sh, which looks as anybody on the network does."""
    name = f"slipway-{lab['name']}-scanner"
    install = "apt-get update -qq && apt-get install -qq -y --no-install-recommends testssl.sh"
    remove = ["docker", "rm", "--force", name]

    def run(*command: str, given: str | None = None) -> str:
        argv = ["docker", "exec", "-i", "-e", "DEBIAN_FRONTEND=noninteractive", name, *command]
        done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=300)
        return done.stdout

    subprocess.run(remove, capture_output=True, check=False)
    place = ["--name", name, "--label", f"slipway.lab={lab['name']}", "--network", lab["network"]]
    subprocess.run(["docker", "run", "--detach", *place, lab["image"], "sleep", "infinity"], check=True)
    installed = run("sh", "-c", f"{install} && command -v testssl")
    assert installed.strip().endswith("/testssl"), installed
    run("sh", "-c", "cat >/ca.pem", given=Path(lab["ca"]).read_text())
    yield run
    subprocess.run(remove, capture_output=True, check=True)


def test_testssl_finds_nothing_above_low(lab, scanner, capsys):
    words = f"--quiet --color 0 --warnings off --nodns none --add-ca /ca.pem --ip {lab['edge_address']}"
    scans = [f"testssl {words} {s} --jsonfile /{name}.json {lab['edge_name']} & " for name, s in SECTIONS.items()]
    said = scanner("bash", "-c", "".join(scans) + "wait")
    told = [entry for name in SECTIONS for entry in json.loads(scanner("cat", f"/{name}.json"))]
    found = {entry["id"]: entry for entry in told}
    for old in ("SSLv2", "SSLv3", "TLS1", "TLS1_1"):
        assert found[old]["finding"].startswith("not offered"), said
    for new in ("TLS1_2", "TLS1_3"):
        assert found[new]["finding"].startswith("offered"), said
    assert found["HSTS_time"]["severity"] == "OK", said
    above = {entry["id"]: entry for entry in told if entry["severity"] not in ("OK", "INFO", "LOW")}
    with capsys.disabled():
        kinds = [f"{len([e for e in told if e['severity'] == kind])} {kind}" for kind in ("OK", "INFO", "LOW")]
        print(f"\n  edge: testssl.sh: {', '.join(kinds)}; above: {', '.join(above) or 'nothing'}", flush=True)
    assert {name: entry for name, entry in above.items() if name not in KNOWN} == {}
