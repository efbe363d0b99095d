"""`make init`: Ansible takes what was written, in a whole checkout, up to the first connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from starter import answers, asking, cli
from tests import newcomer

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHtAqZqnoVbcXeueJ4WWwA3dfKndjOgOjEkskLNZMp1X me@laptop"
# Nobody listens there, so a run ends where it would connect.
NOBODY = ["-e", "ansible_host=127.0.0.1", "-e", "ansible_port=1"]


@pytest.fixture(scope="module")
def slipway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("newcomer")
    root, app = newcomer.write_slipway(place / "slipway"), newcomer.write_app(place / "ledger")
    words = [
        "--domain", "ledger.acme.io", "--host", "203.0.113.7", "--app", str(app), "--key", PUBLIC,
        "--networks", "198.51.100.7", "--email", "ops@acme.io", "--agree-terms", "--yes",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOPS_AGE_KEY_FILE", str(place / "keys.txt"))
        assert cli.main(words, root) == 0
        yield root


def run(root: Path, program: str, *words: str, key: bool = True) -> subprocess.CompletedProcess[str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "SLIPWAY_"))}
    if not key:
        mine["HOME"] = str(root.parent / "nobody")
        mine = {name: value for name, value in mine.items() if not name.startswith("SOPS_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name(program)), *words], cwd=root, env={**mine, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_every_variable_of_site_yml_is_there(slipway: Path) -> None:
    done = run(slipway, "ansible-playbook", "-i", "inventories/production", "playbooks/site.yml", *NOBODY)
    assert "UNREACHABLE" in done.stdout, done.stdout + done.stderr
    assert "Learn what system each host runs" in done.stdout
    assert "[WARNING]" not in done.stderr


def test_a_deploy_needs_no_key_to_the_secrets(slipway: Path) -> None:
    app = slipway.parent / "ledger"
    packed = run(slipway, "python", "bin/pack", "--repo", str(app), "--path", "web", "--name", "ledger", "--json")
    artifact = json.loads(packed.stdout)["artifact"]
    words = ["-i", "inventories/production", "playbooks/deploy.yml", *NOBODY, "-e", f"release_artifact={artifact}"]
    done = run(slipway, "ansible-playbook", *words, key=False)
    assert "UNREACHABLE" in done.stdout, done.stdout + done.stderr
    assert "secrets" not in (done.stdout + done.stderr).lower()


def test_site_yml_without_the_key_is_refused_before_a_host_is_asked(slipway: Path) -> None:
    done = run(slipway, "ansible-playbook", "-i", "inventories/production", "playbooks/site.yml", *NOBODY, key=False)
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "No key here opens secrets/production.sops.yml" in said
    assert "UNREACHABLE" not in said


@pytest.mark.parametrize(("answer", "code", "seen"), [("198.51.100.9", 0, "198.51.100.9"), ("", 255, "192.0.2.4/32")])
def test_the_network_is_what_the_vps_sees_or_else_where_the_session_came_from(
    answer: str, code: int, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{tmp_path}/words\nprintf '{answer}'\nexit {code}\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.4 5000 192.0.2.5 22")
    assert asking.seen_from(answers.Host("203.0.113.7", "ubuntu", "~/.ssh/provider")) == seen
    given = (tmp_path / "words").read_text().splitlines()
    assert "ubuntu@203.0.113.7" in given
    # It asks nothing, and trusts no host that nobody has looked at.
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes"} <= set(given)
