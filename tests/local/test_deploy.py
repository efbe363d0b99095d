"""deploy.yml over hosts that are this machine, with a stand-in for their releasectl: who is asked what, and when."""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.local.controller import Controller
from tests.receivers import Hook

SHA = "c3" * 20
NEW = f"shop-{SHA[:12]}"
INVENTORY = """
edge: {hosts: {edge1: {ansible_connection: local}}}
app: {hosts: {app1: {ansible_connection: local}, app2: {ansible_connection: local}}}
worker: {hosts: {worker1: {ansible_connection: local}}}
scheduler: {hosts: {worker1: }}
production: {hosts: {edge1: , app1: , app2: , worker1: }}
"""
# What the hosts answer to each verb; what they were asked is noted.
SUDO = """#!/bin/sh
echo "$*" >> {place}/asked
case $3 in
  status) cat {place}/status ;;
  preview) cat {place}/preview ;;
  lock) echo '{{"ok": true, "changed": true, "token": "t", "message": "Yours."}}' ;;
  *) echo '{{"ok": true, "changed": true, "message": "Done."}}' ;;
esac
"""
STATUS = {"ok": True, "changed": False, "message": "", "live": {"release": "shop-old"}}
PREVIEW = {
    "ok": True, "changed": False, "message": "", "live": "shop-old", "revision": None, "applied": [],
    "requirements": {}, "settings": {}, "processes": ["gunicorn"], "disks": [], "memory": None,
    "closed": None, "drift": [], "refused": [],
}  # fmt: skip


class Fleet(Controller):
    """Four hosts."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        (place / "hosts.yml").write_text(INVENTORY)
        (place / "sudo").write_text(SUDO.format(place=place))
        self.answer("status", STATUS)
        self.answer("preview", PREVIEW)
        (place / "incoming").mkdir()
        self.artifact = place / f"shop-{SHA}.tar.gz"
        with tarfile.open(self.artifact, "w:gz") as tar:
            for name, content in (("manage.py", b""), ("requirements.lock", b"django==5.2 --hash=sha256:0\n")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    def answer(self, verb: str, answer: dict[str, Any]) -> None:
        (self.place / verb).write_text(json.dumps(answer))

    @property
    def asked(self) -> list[str]:
        """Every call, as the words behind `sudo -n releasectl`."""
        path = self.place / "asked"
        return [line.split(" ", 2)[2] for line in path.read_text().splitlines()] if path.exists() else []

    def verbs(self) -> set[str]:
        return {words.split()[0] for words in self.asked}


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Hook]:
    made = Hook(tmp_path)
    made.release = NEW
    yield made
    made.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def deploy(fleet: Fleet, edge: Hook, *words: str, **more: Any) -> Any:
    known = {
        "app_name": "shop", "app_domain": "localhost", "app_incoming_dir": str(fleet.place / "incoming"),
        "release_artifact": str(fleet.artifact), "release_verify_addresses": ["127.0.0.1"],
        "release_verify_port": edge.server.server_port, "release_verify_ca_certificate": edge.authority,
        "ansible_python_interpreter": sys.executable,
    }  # fmt: skip
    addresses = {"app_backends": [], "app_addresses": ["127.0.0.1"]}
    return fleet.play("deploy", *words, **known, **addresses, **more)


def order(output: str) -> list[tuple[str, ...]]:
    """Which hosts switched together, batch after batch, by their names."""
    batches = output.split("PLAY [Make it live")[1:]
    return [
        tuple(sorted(re.findall(r"^changed: \[(\w+)\]", batch.split("PLAY [Prove")[0], re.MULTILINE)))
        for batch in batches
    ]


def watches(fleet: Fleet) -> list[str]:
    return [word for words in fleet.asked for word in words.split() if word.startswith("--watch=")]


def test_a_canary_is_watched_before_the_others_follow(fleet: Fleet, edge: Hook) -> None:
    run = deploy(fleet, edge, release_canary_minutes=2)
    assert run.returncode == 0, run.stdout + run.stderr
    assert order(run.stdout) == [("worker1",), ("app1",), ("app2",), ("edge1",)]
    assert watches(fleet) == ["--watch=0", "--watch=120", "--watch=0", "--watch=0"]
    assert {word for words in fleet.asked for word in words.split() if word.startswith("--seconds=")} == {
        "--seconds=1020"
    }
    assert f"{NEW} is live on worker1, app1, app2, edge1 in place of shop-old." in run.stdout.strip().splitlines()[-1]


def test_hosts_that_have_it_keep_it_and_one_that_is_left_out_is_named(fleet: Fleet, edge: Hook) -> None:
    fleet.answer("status", {**STATUS, "live": {"release": NEW}})
    run = deploy(fleet, edge, "--limit", "!app2")
    assert run.returncode != 0
    assert f"{NEW} is live already, nothing was changed" in run.stdout.strip().splitlines()[-1]
    assert fleet.verbs() == {"status"}
    fleet.answer("status", STATUS)
    run = deploy(fleet, edge, "--limit", "!app2")
    assert run.returncode == 0, run.stdout + run.stderr
    assert order(run.stdout) == [("worker1",), ("app1", "edge1")]
    assert "Left out: app2, which keeps what it has" in run.stdout.strip().splitlines()[-1]


def test_a_preview_asks_and_does_nothing_else(fleet: Fleet, edge: Hook) -> None:
    run = deploy(fleet, edge, "--check")
    assert run.returncode == 0, run.stdout + run.stderr
    assert fleet.verbs() == {"preview"}
    assert list((fleet.place / "incoming").iterdir()) == []
    assert (
        run.stdout.strip().splitlines()[-1].startswith(f"{NEW} would go live on worker1, app1, app2, edge1 in place of")
    )
    fleet.answer("preview", {**PREVIEW, "refused": ["No room."]})
    run = deploy(fleet, edge, "--check")
    assert run.returncode != 0
    assert run.stdout.strip().splitlines()[-1].startswith(f"{NEW} would be refused. worker1: No room. app1: No room.")


@pytest.mark.failure("setting-missing")
def test_a_setting_that_is_missing_refuses_every_host_before_a_lease(fleet: Fleet, edge: Hook) -> None:
    with tarfile.open(fleet.artifact, "w:gz") as tar:
        for name, content in (
            (".slipway/settings", b"DATABASE_URL\nPAYMENT_KEY\n"),
            ("manage.py", b""),
            ("requirements.lock", b"django==5.2 --hash=sha256:0\n"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    known = {"processes": ["gunicorn"], "settings_names": ["DATABASE_URL"]}
    fleet.answer("status", {**STATUS, **known})
    run = deploy(fleet, edge)
    assert run.returncode != 0
    last = run.stdout.strip().splitlines()[-1]
    assert f"{NEW} needs the setting PAYMENT_KEY (.slipway/settings), which is not in force on" in last
    assert "playbooks/settings.yml" in last
    assert fleet.verbs() == {"status"}
    fleet.answer("preview", {**PREVIEW, "settings": {"names": ["DATABASE_URL"]}})
    looked = deploy(fleet, edge, "--check")
    assert looked.returncode != 0
    assert "needs the setting PAYMENT_KEY" in looked.stdout.strip().splitlines()[-1]
    # Delivered, it costs no question more.
    (fleet.place / "asked").unlink()
    fleet.answer("status", {**STATUS, **known, "settings_names": ["DATABASE_URL", "PAYMENT_KEY"]})
    run = deploy(fleet, edge)
    assert run.returncode == 0, run.stdout + run.stderr
    assert [words.split()[0] for words in fleet.asked].count("status") == 4
