"""From a bare host to a newcomer's own app over HTTPS, by `bin/init` and by what it says to type next.

On a lab of its own, whose hosts are bare: `bin/test first-host`, and `make test-full`. What only the lab needs lies in
a file beside those that were written; nothing of theirs is changed.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import pki
from lab.state import Lab
from starter import keeping
from tests import newcomer

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "ledger.acme.io"
# The lab's hosts are containers: what they need that servers do not.
CONTAINER = ("hardening", "alerts", "audit")


class Newcomer:
    """Who types, and in which checkout."""

    def __init__(self) -> None:
        self.lab = Lab.chosen()
        self.facts: dict[str, Any] = self.lab.facts()
        self.address: str = self.facts["hosts"]["app1"]["ipv4"]
        self.home = self.lab.directory / "newcomer"
        shutil.rmtree(self.home, ignore_errors=True)
        self.app = newcomer.write_app(self.home / "ledger")
        self.slipway = newcomer.write_slipway(self.home / "slipway")
        self.known_hosts = self.home / "known_hosts"
        lines = self.lab.known_hosts.read_text().splitlines()
        keys = [line.split()[1:] for line in lines if line.startswith("app1 ")]
        self.known_hosts.write_text("".join(f"{self.address} {' '.join(key)}\n" for key in keys))
        self.authority = pki.new_authority("The newcomer's")
        self.said = self.shell = ""

    def type(self, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """One line in a shell, in the checkout. A shell of one's own has no lab and no configuration of Ansible's."""
        others = ("ANSIBLE_", "SLIPWAY_", "SOPS_")
        mine = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", line], cwd=self.slipway,
            env={**mine, "SOPS_AGE_KEY_FILE": str(self.home / "keys.txt"), **environment, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done

    def init(self) -> None:
        keys = self.lab.keys
        networks = [re.sub(r"\d+$", "0/24", self.address)]
        if ipv6 := self.facts["hosts"]["app1"].get("ipv6"):
            networks.append(re.sub(r"::.*$", "::/64", ipv6))
        self.said = self.type(
            f"bin/init --domain {DOMAIN} --host root@{self.address} --login-key {keys / 'provider'} --app {self.app}"
            f" --key {keys / 'admin.pub'} --networks {','.join(networks)} --email ops@acme.io --agree-terms --yes"
        ).stdout
        self.layer()

    def layer(self) -> None:
        """What only the lab needs, in a file of its own that is read after those that were written."""
        variables: dict[str, Any] = {}
        for name in CONTAINER:
            variables |= yaml.safe_load((ROOT / f"group_vars/lab/{name}.yml").read_text())
        common = json.loads(self.lab.inventory_file.read_text())["lab"]["vars"]
        certificate, key = pki.new_server(self.authority, [DOMAIN], [self.address])
        variables |= {
            "ansible_ssh_common_args": f"-o UserKnownHostsFile='{self.known_hosts}' -o GlobalKnownHostsFile=/dev/null",
            "ansible_control_path_dir": common["ansible_control_path_dir"],
            "firewall_resolvers": ["127.0.0.11"],
            "firewall_outbound_extra": common["lab_outbound"],
            "nginx_worker_connections": 9000,
            # No authority of the world's comes here.
            "tls_provider": "provided",
            "tls_certificate": certificate,
            "tls_private_key": key,
            "release_verify_ca_certificate": self.authority[0],
        }
        file = self.slipway / "group_vars/production/zz-lab.yml"
        file.write_text(f"---\n{json.dumps(variables, indent=2)}\n")

    def next_commands(self) -> list[str]:
        listed = self.said.partition("Next, in this directory:\n")[2].partition("\n\n")[0].splitlines()
        return [line.partition("    # ")[0].strip() for line in listed]

    def get(self, path: str) -> tuple[int, str | None, str]:
        trust = ssl.create_default_context(cadata=self.authority[0])
        plain = socket.create_connection((self.address, 443), 10)
        connection = http.client.HTTPSConnection(DOMAIN, timeout=10)
        connection.sock = trust.wrap_socket(plain, server_hostname=DOMAIN)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("X-Release"), answer.read().decode()


def stranger(environment: dict[str, str]) -> str:
    """A line of known_hosts that gives the host another key."""
    address, _, _ = environment["SLIPWAY_KNOWN_HOSTS"].split()
    _, public = keeping.new_key("")
    return f"{address} {public}"


@pytest.fixture(scope="module")
def somebody() -> Newcomer:
    return Newcomer()


def test_what_is_said_to_type_leads_to_the_app_over_https(somebody: Newcomer) -> None:
    somebody.init()
    commands = somebody.next_commands()
    verbs = ("bootstrap.yml", "site.yml", "bin/pack", "deploy.yml")
    assert [verb for command in commands for verb in verbs if verb in command] == list(verbs)
    shell = [command for command in commands if command.startswith(("cd ", "export "))]
    somebody.shell = " && ".join(shell)
    for command in commands:
        # The first login, at which a person compares fingerprints: its outcome is in known_hosts here.
        if command in shell or command.startswith("ssh "):
            continue
        somebody.type(f"{somebody.shell} && {command}", **newcomer.COMMITTER)
    commit = newcomer.git(somebody.app, "rev-parse", "HEAD")
    release = f"ledger-{commit[:12]}"
    assert somebody.get("/health/") == (200, release, "ok")
    assert somebody.get("/") == (200, release, "1 visits in postgresql, edition 1")
    assert somebody.get("/static/ledger.css")[::2] == (200, "body { color: black }\n")


def test_to_run_site_again_changes_nothing(somebody: Newcomer) -> None:
    """As long as the checkout is as it was: what was changed in it since would be noted on the host."""
    done = somebody.type(f"{somebody.shell} && ansible-playbook -i inventories/production playbooks/site.yml")
    recap = re.search(rf"^{re.escape(DOMAIN)}\s+: ok=(\d+)\s+changed=(\d+)", done.stdout, re.MULTILINE)
    assert recap, done.stdout
    assert (int(recap[1]) > 100, int(recap[2])) == (True, 0), done.stdout


def test_what_is_written_lints(somebody: Newcomer) -> None:
    """All of it, and not what the lab added."""
    layer = somebody.slipway / "group_vars/production/zz-lab.yml"
    aside = layer.rename(somebody.home / layer.name)
    try:
        for line in (
            f"yamllint --strict inventories group_vars {somebody.app / '.github'}",
            "ansible-lint -q --offline inventories group_vars",
        ):
            somebody.type(f"source .venv/bin/activate && {line}")
    finally:
        aside.rename(layer)


def test_what_was_left_to_do_is_what_site_yml_refuses(somebody: Newcomer) -> None:
    said = somebody.type(
        f"bin/init --environment staging --domain staging.acme.io --host 203.0.113.9 --app {somebody.app}"
        f" --workflow none --key {somebody.lab.keys / 'admin.pub'} --networks 198.51.100.7 --email ops@acme.io --yes"
    ).stdout
    assert "group_vars/staging/tls.yml:6: read https://letsencrypt.org/repository" in said
    refused = somebody.type(
        "source .venv/bin/activate && ! ansible-playbook -i inventories/staging playbooks/site.yml"
    ).stdout
    assert "tls_acme_agree_terms" in refused
    assert "UNREACHABLE" not in refused


def test_the_workflow_releases_the_next_commit_with_the_deploy_key_alone(somebody: Newcomer) -> None:
    """Its steps' shell, as a runner runs it: without a key to the secrets, in checkouts of the commits it names."""
    workflow = somebody.app / ".github/workflows/deploy.yml"
    somebody.type(f"bin/init --pin --workflow {workflow} --known-hosts {somebody.known_hosts}")
    urls = somebody.app / "web/ledger/urls.py"
    urls.write_text(urls.read_text().replace("edition 1", "edition 2"))
    commit = newcomer.commit(somebody.app, "The second edition")

    runner = somebody.home / "runner"
    found = yaml.safe_load(workflow.read_text())
    places = {"app": (somebody.app, commit), "slipway": (somebody.slipway, found["env"]["SLIPWAY_COMMIT"])}
    for name, (source, wanted) in places.items():
        newcomer.git(somebody.home, "clone", "--quiet", str(source), str(runner / name))
        newcomer.git(runner / name, "checkout", "--quiet", wanted)
    # What the host is known by is the workflow's to say here; and a runner has no connection from before, over which
    # nobody would have to prove who they are.
    layer = runner / "slipway/group_vars/production/zz-lab.yml"
    variables = yaml.safe_load(layer.read_text())
    del variables["ansible_ssh_common_args"]
    variables["ansible_control_path_dir"] += "-runner"
    layer.write_text(f"---\n{json.dumps(variables)}\n")
    (runner / "slipway/.venv").symlink_to((ROOT / ".venv").resolve())
    assert not (runner / "slipway/.vault").exists()
    temporary, output = runner / "temp", runner / "output"
    temporary.mkdir()
    environment = {
        **found["env"],
        "RUNNER_TEMP": str(temporary),
        "GITHUB_OUTPUT": str(output),
        "SOPS_AGE_KEY_FILE": str(runner / "no-key"),
        "DEPLOY_KEY": (somebody.slipway / ".vault/production-deploy-key").read_text().rstrip("\n"),
    }
    for step in found["jobs"]["deploy"]["steps"]:
        if "run" not in step:
            continue
        if output.is_file():
            environment["ARTIFACT"] = output.read_text().strip().removeprefix("artifact=")
        line = f"cd {runner / step.get('working-directory', '.')}\n{step['run']}"
        if step["name"] == "Deploy":
            # Not to somebody who answers in the host's place.
            other = environment | {"SLIPWAY_KNOWN_HOSTS": stranger(environment)}
            assert "Host key verification failed" in somebody.type(f"! bash -e <<'STEP'\n{line}\nSTEP", **other).stdout
        somebody.type(line, **environment)
    assert somebody.get("/") == (200, f"ledger-{commit[:12]}", "2 visits in postgresql, edition 2")
    assert list(temporary.iterdir()) == [], "the key is left on the runner"
