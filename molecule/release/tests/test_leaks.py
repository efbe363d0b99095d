"""Secrets are where they are kept and nowhere else: the lab's own are searched for, after whatever was done to its
hosts before, and others are found wherever they are planted."""

from __future__ import annotations

import json
import secrets as chance
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.outside import ROOT, canaries, secrets

HOSTS = ("app1", "data1")
# Who is on the hosts and is not root. The app itself has its own settings, and nobody else's.
OTHERS = ("nobody", "deployer", "www-data")
# Where the values are on purpose, root's alone.
KEPT = "-path '/etc/app/env*' -o -path /run/slipway/env"


@dataclass(frozen=True)
class Place:
    """How a place is searched, by a shell command that prints what holds a line of the file $P, and how one is planted
    there by a command that leaves nothing behind but what ``remove`` takes away.
    """

    search: str
    plant: str
    remove: str = ""


def files(*where: str, but: str = "-path /nothing", packed: bool = False) -> str:
    """Search in files, which may be ``packed``; links and what is no file are left out."""
    grep = "grep --text --no-messages --fixed-strings --file=$P"
    looked = f"xargs -0 -r {grep} --files-with-matches"
    if packed:
        looked = f'xargs -0 -r -n 1 sh -c \'zcat -f "$1" 2>/dev/null | {grep} --quiet && echo "$1"\' -'
    wanted = f"\\( -path /proc -o -path /sys -o {but} \\) -prune -o -type f -print0"
    return f"find {' '.join(where)} -xdev {wanted} 2>/dev/null | {looked}"


def lines(command: str) -> str:
    return f"{command} | grep --text --fixed-strings --file $P | cut -c1-60"


def planted(path: str, by: str = "cat") -> dict[str, str]:
    return {"plant": f"mkdir -p $(dirname {path}) && {by} <$P >{path}", "remove": f"rm {path}"}


PLACES = {
    "journal": Place(
        lines("journalctl --no-pager --quiet --all --output=export"),
        "systemd-cat --identifier=leak cat $P && journalctl --sync",
    ),
    # sudo's own, what nginx, PostgreSQL, Redis and auditd write, and the record of releases.
    "logs": Place(
        files("/var/log", but="-path /var/log/journal", packed=True), **planted("/var/log/sudo-io/leak", by="gzip")
    ),
    "command-lines": Place(
        lines("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'"),
        "python3 -c 'import time; time.sleep(60)' \"$(cat $P)\" >/dev/null 2>&1 & echo $! >/run/leak.pid; sleep 1",
        "kill $(cat /run/leak.pid); rm /run/leak.pid",
    ),
    "environments-of-others": Place(
        " ; ".join(lines(f"runuser -u {one} -- sh -c 'cat /proc/[0-9]*/environ' 2>/dev/null") for one in OTHERS),
        "LEAK=$(cat $P) setsid runuser -u nobody -- sleep 60 >/dev/null 2>&1 & sleep 1",
        "pkill -u nobody -x sleep",
    ),
    "state": Place(files("/var/lib", but="-path /var/lib/postgresql"), **planted("/var/lib/app-leak/leak")),
    "releases-and-images": Place(files("/opt", "/srv", "/var/www", "/var/cache"), **planted("/opt/leak")),
    "core-dumps": Place(
        files("/var/crash", "/var/spool", "/var/lib/systemd"), **planted("/var/lib/systemd/coredump/leak")
    ),
    "temporary-files-and-homes": Place(
        files("/tmp", "/var/tmp", "/dev/shm", "/root", "/home", "/run", but=KEPT), **planted("/root/.ansible/tmp/leak")
    ),
    "what-others-can-read": Place(
        " ; ".join(
            f"runuser -u {one} -- grep --recursive --files-with-matches --text --no-messages --devices=skip"
            f" --fixed-strings --file=- /etc /opt /var /srv /usr/local /run /home /root /tmp <$P"
            for one in OTHERS
        ),
        "install -m 644 $P /usr/local/share/leak",
        "rm /usr/local/share/leak",
    ),
}


@pytest.fixture(scope="module")
def known(lab: dict[str, Any]) -> list[str]:
    """The lab's secrets, and the passwords inside of the settings."""
    found = list(canaries(secrets(lab)))
    assert len(found) >= 5
    assert min(map(len, found)) >= 16
    return found


@pytest.fixture
def search(lab: dict[str, Any]) -> Iterator[Callable[..., str]]:
    """Run a command on a host with $P as a file of what is searched for; no command line ever has that."""
    used = set()

    def run(host: str, command: str, wanted: list[str]) -> str:
        container = lab["hosts"][host]["container"]
        used.add(container)
        script = f"umask 077; export P=/run/searched-for; cat > $P; {command}; rm $P; exit 0"
        done = subprocess.run(
            ["docker", "exec", "-i", container, "bash", "-c", script],
            input="\n".join(wanted) + "\n", capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        return "\n".join(line for line in done.stdout.splitlines() if line != "/run/searched-for")

    yield run
    for container in used:
        subprocess.run(["docker", "exec", container, "rm", "-f", "/run/searched-for"], check=True, timeout=60)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_there(search: Callable[..., str], known: list[str], live: str, host: str, place: str) -> None:
    found = search(host, PLACES[place].search, known)
    for secret in known:
        found = found.replace(secret, "<a secret>")
    assert not found, f"{host}: {found}"


@pytest.mark.parametrize("place", PLACES)
def test_one_that_is_planted_there_is_found(search: Callable[..., str], place: str) -> None:
    leak = [f"planted-{chance.token_hex(16)}"]
    search("app1", PLACES[place].plant, leak)
    try:
        assert search("app1", PLACES[place].search, leak)
    finally:
        if PLACES[place].remove:
            search("app1", PLACES[place].remove, leak)


@pytest.mark.parametrize("playbook", ["site.yml", "settings.yml"])
def test_a_play_shows_none_however_much_it_says(
    lab: dict[str, Any], ops: Any, known: list[str], monkeypatch: pytest.MonkeyPatch, playbook: str
) -> None:
    """Not even those that change: every value is another one than on the host."""
    values = secrets(lab)
    changed = {name: f"another-{chance.token_hex(20)}" for name in values["app"]}
    monkeypatch.setenv("SECRETS_OF_THE_TEST", json.dumps({**values, "app": changed}))
    source = {"kind": "lookup", "value": "{{ lookup('ansible.builtin.env', 'SECRETS_OF_THE_TEST') | from_json }}"}
    tags = ["--tags", "envdir,release,redis,postgresql"] if playbook == "site.yml" else []
    given = ["-e", json.dumps({"secrets_source": source}), "--check", "--diff", "-vvv"]
    run = ops.playbook(f"playbooks/{playbook}", *tags, *given)
    assert run.code == 0, run.closing
    assert "DJANGO_SECRET_KEY (new value)" in run.output
    assert not [secret for secret in (*known, *changed.values()) if secret in run.output]


def test_nothing_is_left_on_the_machine_that_ran_the_plays(lab: dict[str, Any], known: list[str]) -> None:
    """In the clear: the lab's own file of them is encrypted."""
    wanted = [secret.encode() for secret in known]
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    places = [ROOT / name for name in tracked.split("\0") if name]
    for top in (Path(lab["reports"]).parent, Path.home() / ".ansible"):
        places += [path for path in top.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(places) > 500
    assert not [str(path) for path in places if path.is_file() and any(one in path.read_bytes() for one in wanted)]
