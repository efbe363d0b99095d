"""The workflow file for the app's own repository, and what pins it: Slipway's commit and the host's keys."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import yaml

from starter.answers import Wrong
from starter.render import quoted

TEMPLATE = Path(__file__).with_name("deploy.yml.in")
REMOTE = re.compile(
    r"(?:git@github\.com:|https://(?:[^@/]+@)?github\.com/|ssh://git@github\.com/)([\w.-]+/[\w.-]+?)(?:\.git)?/?"
)
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
TAGS = {"production": "v*", "staging": "staging-*"}
NOBODY = "your-organisation/slipway"


def render(environment: str, repository: str, runner: str, path: str, name: str) -> str:
    text = TEMPLATE.read_text()
    values = {
        "ENVIRONMENT": environment,
        "TAGS": TAGS[environment],
        "REPOSITORY": repository or NOBODY,
        "RUNNER": quoted(runner) if "[" not in runner else runner,
        "PATH": shlex.quote(path or "."),
        "NAME": shlex.quote(name),
    }
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def repository(root: Path) -> str:
    """owner/name of this checkout on GitHub, by its remote; empty where there is none."""
    done = _git(root, "remote", "get-url", "origin")
    match = REMOTE.fullmatch(done.stdout.strip())
    return match[1] if match else ""


def pin(root: Path, environment: str, file: Path, known_hosts: str = "") -> list[str]:
    """Write this checkout's commit and the host's keys into a workflow that is there; say what is left to do."""
    if not file.is_file():
        raise Wrong(f"There is no workflow {file}: --workflow PATH names it, or --app the checkout that has it")
    mine = [f"inventories/{environment}", "group_vars/all", f"group_vars/{environment}"]
    changed = _git(root, "status", "--porcelain", "--", *mine).stdout.splitlines()
    if changed:
        raise Wrong(f"{changed[0][3:]} is not committed here, so no commit has it: commit it, push, and pin again")
    commit = _git(root, "rev-parse", "--verify", "HEAD").stdout.strip()
    if not commit:
        raise Wrong(f"{root} is no git repository: CI checks a commit of it out, so put it into one and push it")
    values = {"SLIPWAY_COMMIT": commit, "SLIPWAY_KNOWN_HOSTS": "\n".join(host_keys(root, environment, known_hosts))}
    text = file.read_text()
    for name, value in values.items():
        before, line, after = text.partition(f"\n  {name}:")
        if not line:
            raise Wrong(f"{file} has no line `  {name}: …`: it is not the workflow that `make init` writes")
        text = f"{before}{line} {json.dumps(value)}\n{after.partition(chr(10))[2]}"
    file.write_text(text)
    if not _git(root, "branch", "--remotes", "--contains", commit).stdout.strip():
        return [f"push this checkout: no remote branch has {commit[:12]} yet, and CI will look for it"]
    return []


def host_keys(root: Path, environment: str, known_hosts: str = "") -> list[str]:
    """The keys by which ssh on this machine knows the hosts, as lines of known_hosts."""
    inventory = yaml.safe_load((root / "inventories" / environment / "hosts.yml").read_text())
    lines = []
    for name, variables in (inventory[environment].get("hosts") or {}).items():
        address = str((variables or {}).get("ansible_host", name))
        done = subprocess.run(
            ["ssh-keygen", *(["-f", known_hosts] if known_hosts else []), "-F", address],
            capture_output=True,
            text=True,
            check=False,
        )
        keys = [line.split()[1:3] for line in done.stdout.splitlines() if line and line[0] not in "#@"]
        keys = [key for key in keys if key[0] == "ssh-ed25519"] or keys
        if not keys:
            raise Wrong(f"ssh here does not know {address} yet: log in once, compare its fingerprint, and pin again")
        lines += [f"{address} {' '.join(key)}" for key in keys]
    return lines


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
