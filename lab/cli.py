"""The lab's verbs. SLIPWAY_LAB names the lab (default: lab), SLIPWAY_TOPOLOGY a new one's kind: host, fleet, eight."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import engine, files, hosts, image, network
from lab.secrets import Secrets
from lab.state import ROOT, TOPOLOGIES, Lab, LabError, Progress, write
from lab.vm import disk, machine
from lab.vm.state import Guest


def up(lab: Lab) -> None:
    say = Progress()
    with _alone(lab):
        hosts.refuse_strangers(lab)
        hosts.require_watchers(lab)
        write(lab.topology_file, lab.topology + "\n")
        files.ensure_keys(lab)
        chosen = _standing_image(lab) or image.find_or_build(say)
        addresses = network.ensure(lab)
        port = hosts.published_port(lab) or hosts.free_port()
        secrets = Secrets(lab)
        secrets.ensure_passwords()
        files.ensure_certificates(lab, secrets, addresses)
        secrets.save()
        hosts.ensure(lab, chosen, addresses, port, say)
        files.write_known_hosts(lab, {host: hosts.host_keys(lab, host) for host in lab.hosts})
        files.write_ssh_config(lab, addresses)
        files.write_inventory(lab, secrets, addresses)
        files.write_facts(lab, chosen, addresses, port)
    places = ", ".join(f"{host} {addresses[host]['ipv4']}" for host in lab.hosts)
    say(f"lab {lab.name} is up: {places}; its edge will answer at https://bookshop.localhost:{port}/")


def down(lab: Lab) -> None:
    """Remove all of it but the test reports, which are what a test run leaves to be read."""
    say = Progress()
    with _alone(lab):
        hosts.refuse_strangers(lab, to_remove=True)
        machine.stop(Guest.of(lab))
        disk.forget(lab)
        end_connections(lab)
        _forget_in_molecule(lab)
        hosts.remove(lab)
        network.remove(lab)
        for entry in lab.directory.iterdir():
            if entry == lab.reports or entry.name == "lock":
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    (lab.directory / "lock").unlink(missing_ok=True)
    if not any(lab.directory.iterdir()):
        lab.directory.rmdir()
    say(f"lab {lab.name} is removed")


def status(lab: Lab) -> None:
    for host in lab.hosts:
        found = engine.inspect("container", [lab.container(host)])
        state = found[0]["State"]["Status"] if found else "absent"
        place = lab.facts()["hosts"][host]["ipv4"] if lab.facts_file.is_file() else "-"
        print(f"{host:8}{state:10}{place}")
    if lab.facts_file.is_file():
        print(lab.facts()["url"])


def shell(lab: Lab, host: str, command: list[str]) -> int:
    """A root shell by the engine: it works whatever a role did to sshd."""
    lab.facts()
    terminal = ["--interactive", "--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else ["--interactive"]
    return subprocess.call(["docker", "exec", *terminal, lab.container(host), *(command or ["bash", "-l"])])


def facts(lab: Lab) -> None:
    print(json.dumps(lab.facts(), indent=2))


def restart(lab: Lab, host: str) -> None:
    say = Progress()
    hosts.restart(lab, host, lab.facts()["hosts"][host]["ipv4"])
    say(f"{host} has restarted")


def _standing_image(lab: Lab) -> str:
    """A lab that stands keeps its image: a changed recipe takes effect with the next lab."""
    found = engine.inspect("container", [lab.container(host) for host in lab.hosts])
    return str(found[0]["Config"]["Image"]) if len(found) == len(lab.hosts) else ""


def end_connections(lab: Lab) -> None:
    """Ansible keeps its ssh connections for a minute: end those to hosts that are going."""
    if not lab.control_paths.is_dir():
        return
    for socket in lab.control_paths.iterdir():
        subprocess.run(
            ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "-"],
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
    shutil.rmtree(lab.control_paths)


def _forget_in_molecule(lab: Lab) -> None:
    """Molecule would not create again what it believes to stand."""
    directory = lab.facts().get("molecule") if lab.facts_file.is_file() else ""
    if directory:
        (Path(directory) / "state.yml").unlink(missing_ok=True)


@contextmanager
def _alone(lab: Lab) -> Iterator[None]:
    """One `up` or `down` at a time for a lab; a second one waits for the first."""
    lab.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (lab.directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="lab/lab.py", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="build the image, start the hosts, write .lab/<name>/")
    verbs.add_parser("down", help="remove all of it")
    verbs.add_parser("status", help="which hosts stand, and where")
    verbs.add_parser("facts", help="what the lab knows, as JSON")
    known = sorted({host for names, _ in TOPOLOGIES.values() for host in names})
    ssh = verbs.add_parser("ssh", help="a root shell, or one command, on a host")
    ssh.add_argument("host", choices=known)
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    again = verbs.add_parser("restart", help="restart a host, as a reboot would")
    again.add_argument("host", choices=known)
    options = parser.parse_args()
    os.chdir(ROOT)
    try:
        lab = Lab.chosen()
        if options.verb == "ssh":
            return shell(lab, options.host, options.command)
        if options.verb == "restart":
            restart(lab, options.host)
        else:
            {"up": up, "down": down, "status": status, "facts": facts}[options.verb](lab)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
