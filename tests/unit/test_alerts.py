"""What alerts finds, tells once, tells again, and keeps for a webhook that is down; and what is refused before."""

from __future__ import annotations

import contextlib
import datetime
import errno
import importlib.util
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lab import pki

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3600.0
DAY = 24 * HOUR
NOW = datetime.datetime(2026, 11, 24, 3, 12, tzinfo=datetime.UTC).timestamp()


def load(path: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


alerts = load("roles/alerts/files/alerts.py", "alerts_under_test")
plugin = load("plugins/filter/alerts.py", "alerts_filter_under_test")


@pytest.fixture
def settings() -> dict[str, Any]:
    return {
        "app": "bookshop", "host": "app1", "format": "json", "settle_seconds": 900, "repeat_seconds": DAY,
        "certificate_days": 21, "certificate_files": [], "edges": [], "disk_percent": 90, "disk_ignore": [],
        "memory_percent": 5, "swap_percent": 90, "clock": True, "reboot_days": 7, "files": [],
        "ignored_units": ["releasectl-*"], "spool_max": 30,
    }  # fmt: skip


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files like a host's, and programs that answer as they are told."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setattr(alerts, "UTC", {**alerts.UTC, "PATH": f"{programs}:{os.environ['PATH']}"})
    (tmp_path / "state").mkdir()
    (tmp_path / "meanwhile").mkdir()
    (tmp_path / "webhook").write_text("")
    (tmp_path / "boot_id").write_text("one\n")
    for name, path in {
        "STATE": "state", "MEANWHILE": "meanwhile",
        "WEBHOOK": "webhook", "AUTHORITY": "ca.pem", "BOOT": "boot_id", "MEMORY": "meminfo",
        "REBOOT_FLAG": "reboot-required", "CONFIGURATION": "alerts.json", "MOUNTS": "mountinfo",
    }.items():  # fmt: skip
        monkeypatch.setattr(alerts, name, tmp_path / path)
    program(tmp_path, "systemctl", "exit 0")
    return tmp_path


def program(host: Path, name: str, script: str) -> None:
    path = host / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def finding(key: str = "unit:a.service", **more: Any) -> Any:
    return alerts.Finding(key, more.pop("what", "a.service has failed"), "systemctl status a.service", **more)


class Days:
    """A host's looks, one after the other."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.state = settings, alerts.fresh_state()

    def at(self, when: float, *found: Any, whole: bool = True) -> list[str]:
        told = alerts.compare(self.state, list(found), self.settings, NOW + when, whole)
        return [one["kind"] for one in told]


# What is told, and when.


def test_the_same_thing_is_told_once_then_daily_then_that_it_is_over(settings: dict[str, Any]) -> None:
    days = Days(settings)
    assert days.at(0, finding()) == ["problem"]
    assert [days.at(when, finding()) for when in (300, HOUR, 23 * HOUR)] == [[], [], []]
    assert days.at(DAY, finding()) == ["still"]
    assert days.at(DAY + 300) == []
    assert days.at(DAY + 300 + 900) == ["over"]
    assert days.at(DAY + 300 + 1200) == []


def test_a_line_says_what_where_since_when_and_what_to_type(settings: dict[str, Any]) -> None:
    state = alerts.fresh_state()
    told = alerts.compare(state, [finding(since=NOW - 60)], settings, NOW, True)
    body = alerts.FORMATS["json"](settings, told)
    assert body["text"] == (
        "[bookshop app1] Wrong: a.service has failed, since 2026-11-24 03:11 UTC. Type: systemctl status a.service"
    )
    assert body["messages"][0]["at"] == "2026-11-24T03:12:00Z"


def test_what_is_over_says_how_long_it_lasted(settings: dict[str, Any]) -> None:
    days = Days(settings)
    days.at(0, finding())
    days.at(1800)
    (told,) = alerts.compare(days.state, [], settings, NOW + 2 * HOUR, True)
    assert told["text"] == "over: a.service has failed. It lasted 30 min, until 2026-11-24 03:42 UTC"


def test_a_unit_that_flaps_does_not_flood(settings: dict[str, Any]) -> None:
    days = Days(settings)
    told = []
    for minute in range(0, 24 * 60, 5):
        told += days.at(minute * 60.0, *([finding()] if minute % 10 == 0 else []))
    assert told == ["problem"]
    # One that comes back just after it was over has to stay away for longer each time.
    days, told = Days(settings), []
    for minute in range(0, 24 * 60, 5):
        told += days.at(minute * 60.0, *([finding()] if minute % 30 == 0 else []))
    assert len(told) <= 8
    assert days.state["problems"]["unit:a.service"]["times"] > 20


def test_what_has_to_last_is_not_told_before(settings: dict[str, Any]) -> None:
    days = Days(settings)
    assert days.at(0, finding(hold=3600)) == []
    # Gone before anybody knew: nobody hears that it is over.
    assert days.at(300) == []
    assert days.at(HOUR) == []
    assert days.state["problems"] == {}
    assert days.at(2 * HOUR, finding(hold=3600)) == []
    assert days.at(3 * HOUR, finding(hold=3600)) == ["problem"]


def test_one_unit_that_failed_says_nothing_of_the_others(settings: dict[str, Any]) -> None:
    days = Days(settings)
    days.at(0, finding("disk:/"))
    assert days.at(60, finding(), whole=False) == ["problem"]
    assert not days.state["problems"]["disk:/"]["fine"]


@pytest.mark.parametrize(
    ("stopped", "expected"),
    [(NOW - 100, "shut down in order at 2026-11-24 03:10"), (0, "without having been shut down")],
)
def test_a_reboot_is_told_once(stopped: float, expected: str) -> None:
    state = {**alerts.fresh_state(), "boot": "one", "stopped": stopped, "looked": NOW - 200}
    (told,) = alerts.rebooted(state, "two", NOW)
    assert expected in told["text"]
    assert alerts.rebooted(state, "two", NOW) == []


def test_the_first_look_ever_is_no_reboot() -> None:
    assert alerts.rebooted(alerts.fresh_state(), "one", NOW) == []


def test_a_systemd_that_does_not_answer_is_no_reboot(host: Path) -> None:
    program(host, "systemctl", "echo UserspaceTimestampMonotonic=5")
    state = {**alerts.fresh_state(), "boot": alerts.boot_identity(), "stopped": NOW - 100}
    program(host, "systemctl", "echo no bus >&2; exit 1")
    assert alerts.rebooted(state, alerts.boot_identity(), NOW) == []
    # Nor is what was known forgotten.
    assert len(alerts.rebooted(state, "two", NOW)) == 1


def test_a_unit_stopped_by_hand_does_not_make_a_later_crash_planned() -> None:
    state = {**alerts.fresh_state(), "boot": "one", "stopped": NOW - 3600}
    assert alerts.rebooted(state, "one", NOW) == []
    assert "without having been shut down" in alerts.rebooted(state, "two", NOW + 60)[0]["text"]


# What is looked at.


def keys(found: Iterator[Any]) -> list[str]:
    return [one.key for one in found]


def test_failed_units_are_found_but_for_the_ignored(host: Path, settings: dict[str, Any]) -> None:
    program(
        host, "systemctl",
        'case $1 in list-units) echo "a.service loaded failed failed A";'
        ' echo "releasectl-x.service loaded failed failed B";;'
        " *) echo Result=oom-kill; echo StateChangeTimestampMonotonic=0;; esac",
    )  # fmt: skip
    (found,) = alerts.units(settings, NOW)
    assert (found.key, found.what) == ("unit:a.service", "a.service has failed (oom-kill)")


def test_certificates_near_their_end_are_found(host: Path, settings: dict[str, Any]) -> None:
    certificate, _ = pki.new_server(pki.new_authority("a"), ["a.test"], [])
    path = host / "a.pem"
    path.write_text(certificate)
    settings["certificate_files"] = [str(path), str(host / "absent.pem")]
    end = alerts.expiry("PEM", path.read_bytes())
    found = [one.what for one in alerts.certificates(settings, end - 20.5 * DAY)]
    assert "expires in 20 days" in found[0]
    assert "cannot be read" in found[1]
    assert len(list(alerts.certificates(settings, end - 22 * DAY))) == 1
    assert "has expired" in next(alerts.certificates(settings, end + 1)).what


def test_what_the_edge_shows_is_told_when_it_is_not_what_is_on_disk(
    host: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = pki.new_authority("a")
    path = host / "a.pem"
    old, _ = pki.new_server(authority, ["a.test"], [])
    path.write_text(old)
    end = alerts.expiry("PEM", path.read_bytes())
    settings |= {"certificate_files": [str(path)], "edges": ["a.test"]}
    monkeypatch.setattr(alerts, "served", lambda _: ssl.PEM_cert_to_DER_cert(old))
    assert keys(alerts.certificates(settings, end - DAY)) == [f"certificate:{path}"]
    path.write_text(pki.new_server(authority, ["a.test"], [], days=400)[0])
    assert keys(alerts.certificates(settings, end - DAY)) == ["served:a.test"]

    def refused(_: str) -> bytes:
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(alerts, "served", refused)
    (found,) = alerts.certificates(settings, end - DAY)
    assert (found.key, found.hold) == ("edge:a.test", 120)


def test_a_full_file_system_is_found_once_for_each_device(
    host: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (host / "mountinfo").write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 /a /srv/bind rw - ext4 /dev/sda1 rw\n"
        "3 1 8:2 / /srv/with\\040bläñk rw - xfs /dev/sdb rw\n4 1 0:5 / /proc rw - proc proc rw\n"
        "5 1 8:3 / /snap/core/1 ro - squashfs /dev/loop0 ro\n"
    )
    seen = {"/": (1000, 80, 50, 1000, 900), "/srv/with bläñk": (1000, 900, 900, 100, 5)}

    def statvfs(path: str) -> Any:
        blocks, free, available, files, free_files = seen[path]
        fields = {"f_blocks": blocks, "f_bfree": free, "f_bavail": available, "f_files": files, "f_ffree": free_files}
        return type("Seen", (), {**fields, "f_frsize": 1048576})

    monkeypatch.setattr(alerts.os, "statvfs", statvfs)
    assert keys(alerts.disks(settings, NOW)) == ["disk:/", "inodes:/srv/with bläñk"]
    assert "95 % full, 50 MiB left" in next(alerts.disks(settings, NOW)).what
    settings["disk_ignore"] = ["/srv/*"]
    assert keys(alerts.disks(settings, NOW)) == ["disk:/"]


@pytest.mark.parametrize(
    ("available", "swap_free", "expected"),
    [(500, 800, []), (40, 800, ["memory"]), (500, 50, ["swap"]), (40, 50, ["memory", "swap"])],
)
def test_memory(host: Path, settings: dict[str, Any], available: int, swap_free: int, expected: list[str]) -> None:
    (host / "meminfo").write_text(
        f"MemTotal: 1000 kB\nMemAvailable: {available} kB\nSwapTotal: 1000 kB\nSwapFree: {swap_free} kB\n"
    )
    assert keys(alerts.memory(settings, NOW)) == expected


def test_no_swap_is_no_full_swap(host: Path, settings: dict[str, Any]) -> None:
    (host / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 500 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n")
    assert keys(alerts.memory(settings, NOW)) == []


def test_files_that_are_overdue_or_not_there_are_found(host: Path, settings: dict[str, Any]) -> None:
    for name, age in (("fresh", 1), ("old", 30), ("dump-1", 50), ("dump-2", 2)):
        (host / name).write_text("")
        os.utime(host / name, (NOW - age * HOUR, NOW - age * HOUR))
    settings["files"] = [
        {"path": str(host / name), "hours": 26, "purpose": f"the {name}"}
        for name in ("fresh", "old", "absent", "dump-*")
    ]
    found = {one.key.rpartition("/")[2]: one.what for one in alerts.files(settings, NOW)}
    assert set(found) == {"old", "absent"}
    assert "is 30 hours old, 26 hours at most are right" in found["old"]
    assert "the absent is overdue" in found["absent"]


@pytest.mark.parametrize(("said", "expected"), [("yes", []), ("no", ["clock"])])
def test_the_clock(host: Path, settings: dict[str, Any], said: str, expected: list[str]) -> None:
    program(host, "timedatectl", f"echo {said}")
    assert keys(alerts.clocks(settings, NOW)) == expected


def test_an_upgrade_that_waits_for_a_reboot(host: Path, settings: dict[str, Any]) -> None:
    assert keys(alerts.reboots(settings, NOW)) == []
    (host / "reboot-required").write_text("")
    os.utime(host / "reboot-required", (NOW - 6 * DAY, NOW - 6 * DAY))
    assert keys(alerts.reboots(settings, NOW)) == []
    assert keys(alerts.reboots(settings, NOW + 2 * DAY)) == ["reboot"]


def test_to_be_blind_is_told(host: Path, settings: dict[str, Any]) -> None:
    program(host, "systemctl", "echo no bus; exit 1")
    (host / "meminfo").write_text("")
    (host / "mountinfo").write_text("")
    program(host, "timedatectl", "echo yes")
    assert [one.key for one in alerts.look_at_all(settings, NOW)] == ["look:units", "look:memory"]


# The webhook.


class Receiver:
    """An HTTPS server of the test's own, which answers as it is told."""

    def __init__(self, place: Path) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.status = 200
        self.poison = ""
        self.drips = False
        authority = pki.new_authority("the test's")
        certificate, key = pki.new_server(authority, ["localhost"], ["127.0.0.1"])
        (place / "ca.pem").write_text(authority[0])
        (place / "server.pem").write_text(certificate + key)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status = 400 if receiver.poison and receiver.poison in text else receiver.status
                if 200 <= status < 300:
                    receiver.bodies.append(json.loads(text))
                receiver.paths.append(self.path)
                self.send_response(status)
                self.send_header("Location", "https://127.0.0.1:1/elsewhere")
                self.end_headers()
                # Until the other side has gone away.
                with contextlib.suppress(OSError):
                    while receiver.drips:
                        self.wfile.write(b".")
                        time.sleep(0.05)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trust.load_cert_chain(place / "server.pem")
        self.server.socket = trust.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}/services/T0/canary"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def texts(self) -> list[str]:
        return [one["text"] for body in self.bodies for one in body["messages"]]


@pytest.fixture
def receiver(host: Path) -> Iterator[Receiver]:
    made = Receiver(host)
    (host / "webhook").write_text(made.url + "\n")
    yield made
    made.server.shutdown()
    made.server.server_close()


def tell(state: dict[str, Any], settings: dict[str, Any], *texts: str, at: float = NOW) -> None:
    alerts.spool(state, [alerts.message("problem", at, text, text, "do") for text in texts], settings, at)
    alerts.deliver(state, settings, at)


def test_messages_arrive(receiver: Receiver, host: Path, settings: dict[str, Any]) -> None:
    state = alerts.fresh_state()
    tell(state, settings, "one", "two")
    assert receiver.texts() == ["one", "two"]
    assert receiver.paths == ["/services/T0/canary"]
    assert state["spool"] == []
    assert state["delivered"] == NOW
    # Kept at once: whatever ends the delivery, it is not sent again.
    assert json.loads((host / "state/state.json").read_text())["spool"] == []


@pytest.mark.parametrize("status", [302, 404, 429, 500])
def test_what_is_not_taken_waits_and_comes_later_with_a_word_on_it(
    receiver: Receiver, settings: dict[str, Any], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    state = alerts.fresh_state()
    receiver.status = status
    tell(state, settings, "one")
    assert len(state["spool"]) == 1
    assert str(status) in state["trouble"]
    receiver.status = 200
    tell(state, settings, "two", at=NOW + HOUR)
    assert receiver.texts()[1:] == ["one", "two"]
    assert "could not be told anything since 2026-11-24 03:12 UTC" in receiver.texts()[0]
    assert not state["failing"]
    assert "canary" not in capsys.readouterr().err + json.dumps(state)


def test_a_webhook_that_is_not_there_is_tried_again(receiver: Receiver, host: Path, settings: dict[str, Any]) -> None:
    state = alerts.fresh_state()
    (host / "webhook").write_text("https://127.0.0.1:1/services/canary\n")
    tell(state, settings, "one")
    assert "127.0.0.1 is not reached" in state["trouble"]
    (host / "webhook").write_text(receiver.url + "\n")
    tell(state, settings, at=NOW + 300)
    assert receiver.texts()[-1] == "one"


def test_a_stranger_with_the_name_gets_nothing(receiver: Receiver, host: Path, settings: dict[str, Any]) -> None:
    (host / "ca.pem").write_text(pki.new_authority("another")[0])
    state = alerts.fresh_state()
    tell(state, settings, "one")
    assert receiver.paths == []
    assert "certificate verify failed" in state["trouble"].lower()


def test_one_message_that_it_cannot_take_does_not_keep_the_others_back(
    receiver: Receiver, settings: dict[str, Any]
) -> None:
    state = alerts.fresh_state()
    receiver.poison = "poison"
    tell(state, settings, "one", "poison", "three")
    assert receiver.texts() == ["one", "three"]
    assert [one["text"] for one in state["spool"]] == ["poison"]
    # It does not stay for ever either.
    tell(state, settings, at=NOW + 8 * DAY)
    assert state["spool"] == []


def test_what_waits_is_bounded_and_what_was_given_up_is_counted(
    receiver: Receiver, host: Path, settings: dict[str, Any]
) -> None:
    state = alerts.fresh_state()
    receiver.status = 503
    tell(state, settings, *(str(number) for number in range(50)))
    assert [one["text"] for one in state["spool"]] == [str(number) for number in range(20, 50)]
    receiver.status = 204
    tell(state, settings, at=NOW + 300)
    assert "the 20 oldest messages were given up" in receiver.texts()[0]
    assert receiver.texts()[1:] == [str(number) for number in range(20, 50)]


def test_what_it_took_of_a_batch_is_noted_one_by_one(
    receiver: Receiver, host: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends us between two of them: what has arrived is not sent again with each look."""
    state = alerts.fresh_state()
    receiver.poison = "poison"
    kept = []
    real = alerts.send

    def send(url: str, settings: dict[str, Any], told: Any) -> Any:
        path = host / "state/state.json"
        kept.append(len(json.loads(path.read_text())["spool"]) if path.exists() else None)
        return real(url, settings, told)

    monkeypatch.setattr(alerts, "send", send)
    tell(state, settings, "one", "two", "poison")
    assert kept == [None, None, 2, 1]


def test_a_webhook_that_never_comes_to_an_end_is_left(
    receiver: Receiver, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says a word now and then: no single wait is a long one."""
    monkeypatch.setattr(alerts, "ANSWER_PATIENCE", 0.5)
    receiver.drips = True
    state = alerts.fresh_state()
    tell(state, settings, "one")
    receiver.drips = False
    assert "127.0.0.1 is not reached: no whole answer within 0.5 s" in state["trouble"]
    assert len(state["spool"]) == 1


def test_a_slow_webhook_does_not_keep_the_state_for_ever(
    receiver: Receiver, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings["spool_max"] = 100
    monkeypatch.setattr(alerts, "DELIVERY_PATIENCE", 0)
    state = alerts.fresh_state()
    tell(state, settings, *(str(number) for number in range(50)))
    assert len(state["spool"]) == 50
    assert not state["failing"]
    monkeypatch.setattr(alerts, "DELIVERY_PATIENCE", 60)
    tell(state, settings, at=NOW + 300)
    assert receiver.texts() == [str(number) for number in range(50)]


def test_without_a_webhook_it_is_in_the_journal_alone(
    host: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    state = alerts.fresh_state()
    tell(state, settings, "one")
    assert state["spool"] == []
    assert capsys.readouterr().err == "<4>one. Type: do\n"


def test_slack_takes_no_markup_from_what_is_told(settings: dict[str, Any]) -> None:
    told = [alerts.message("problem", NOW, "k", "a <b> & c", "d > e")]
    assert alerts.slack(settings, told) == {"text": "[bookshop app1] Wrong: a &lt;b&gt; &amp; c. Type: `d &gt; e`"}


def test_teams_gets_a_card(settings: dict[str, Any]) -> None:
    body = alerts.teams(settings, [alerts.message("over", NOW, "k", "over"), alerts.message("problem", NOW, "k", "x")])
    (attachment,) = body["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert [block["text"] for block in attachment["content"]["body"]] == [
        "[bookshop app1] Over.",
        "[bookshop app1] Wrong: x.",
    ]


def test_the_units_have_the_address_from_systemd(host: Path) -> None:
    """As often as they ask, from a file that they could not open themselves."""
    (host / "given").write_text("https://a.test/b\n")
    program = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'roles/alerts/files')!r}, {str(ROOT / 'plugins/module_utils')!r}];"
        " import alerts, pathlib;"
        f" alerts.WEBHOOK = pathlib.Path('/nonexistent'); print(alerts.webhook(), alerts.webhook())"
    )
    command = [sys.executable, "-B", "-c", program]
    with (host / "given").open() as given:
        done = subprocess.run(command, stdin=given, capture_output=True, text=True, check=True)
    assert done.stdout == "https://a.test/b https://a.test/b\n"
    done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, text=True, check=False)
    assert "is root's alone" in done.stderr


# The state, and those who log in.


def test_a_state_that_cannot_be_read_is_begun_anew(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "state/state.json").write_text("{ half")
    with alerts.remembered() as state:
        assert state == alerts.fresh_state()
    assert "begun anew" in capsys.readouterr().err
    assert json.loads((host / "state/state.json").read_text()) == alerts.fresh_state()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_on_a_disk_that_takes_nothing_it_is_told_once_all_the_same(
    receiver: Receiver, host: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real = alerts.write_whole

    def full(path: Path, state: dict[str, Any]) -> None:
        if path.parent == host / "state":
            raise OSError(code, os.strerror(code))
        real(path, state)

    monkeypatch.setattr(alerts, "write_whole", full)
    monkeypatch.setattr(alerts, "look_at_all", lambda *_: [finding("disk:/", what="the disk / is 100 % full")])
    for _ in range(3):
        alerts.look(settings)
    assert len(receiver.texts()) == 1
    assert "100 % full" in receiver.texts()[0]
    monkeypatch.setattr(alerts, "write_whole", real)
    alerts.look(settings)
    assert len(receiver.texts()) == 1
    assert list((host / "meanwhile").iterdir()) == [host / "meanwhile/lock"]
    assert "disk:/" in json.loads((host / "state/state.json").read_text())["problems"]


def test_half_a_state_takes_no_room_on_a_full_disk(host: Path) -> None:
    (host / "state/state.json.new").symlink_to("/dev/full")
    alerts.write_state(alerts.fresh_state())
    assert list((host / "state").iterdir()) == []
    assert json.loads((host / "meanwhile/state.json").read_text()) == alerts.fresh_state()


def noticed(host: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str], **state: Any) -> str:
    with alerts.remembered() as kept:
        kept |= state
    alerts.notice(settings)
    return capsys.readouterr().out


def test_who_logs_in_hears_that_nobody_is_told(
    host: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    now = alerts.time.time()
    assert "Nobody is told" in noticed(host, settings, capsys, looked=now)
    (host / "webhook").write_text("https://a.test/b\n")
    assert noticed(host, settings, capsys, looked=now) == ""
    assert "Nothing has looked at this host since" in noticed(host, settings, capsys, looked=now - 2 * HOUR)
    said = noticed(host, settings, capsys, looked=now, failing=now, trouble="a.test answered 500")
    assert "Nobody was told anything since" in said
    assert "a.test answered 500" in said


def test_who_logs_in_hears_what_is_wrong(
    host: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (host / "webhook").write_text("https://a.test/b\n")
    state = alerts.fresh_state()
    alerts.compare(state, [finding()], settings, NOW, True)
    said = noticed(host, settings, capsys, looked=alerts.time.time(), problems=state["problems"])
    assert said == "Wrong since 2026-11-24 03:12 UTC: a.service has failed. Type: systemctl status a.service\n"


def test_it_runs_on_its_own() -> None:
    """With no module but those of the standard library, and the formats that the role installs with it."""
    program = (
        f"import sys, runpy; sys.path.insert(0, {str(ROOT / 'plugins/module_utils')!r});"
        f" runpy.run_path({str(ROOT / 'roles/alerts/files/alerts.py')!r}, run_name='__main__')"
    )
    # -S: without what is installed beside the standard library.
    command = [sys.executable, "-I", "-S", "-c", program, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "alerts test" in done.stdout


# What is refused before the first change.

SLACK = "https://hooks.slack.com/services/T0/canary"


@pytest.mark.parametrize(
    ("entry", "reached"),
    [
        ({"names": ["hooks.slack.com"], "ports": [443]}, True),
        ({"names": ["slack.com"], "ports": ["400:500"]}, True),
        ({"networks": ["any"], "ports": [443]}, True),
        ({"names": ["hooks.slack.com"], "ports": [443], "user": "slipway-alerts"}, True),
        ({"names": ["ack.com"], "ports": [443]}, False),
        ({"names": ["hooks.slack.com"], "ports": [80]}, False),
        ({"names": ["hooks.slack.com"], "ports": [443], "groups": ["worker"]}, False),
        ({"names": ["hooks.slack.com"], "ports": [443], "protos": ["udp"]}, False),
        ({"names": ["hooks.slack.com"], "ports": [443], "user": "app"}, False),
    ],
)
def test_the_firewall_has_to_let_it_out(entry: dict[str, Any], reached: bool) -> None:
    found = plugin.problems(SLACK, [entry], ["app", "edge"], [])
    assert (found == []) is reached
    assert "canary" not in "".join(found)
    if not reached:
        assert "names: [hooks.slack.com]" in found[0]
        assert "firewall_outbound_extra" in found[0]


def test_an_address_is_let_out_by_its_network() -> None:
    url = "https://192.0.2.7:9443/hook"
    assert plugin.problems(url, [{"networks": ["192.0.2.0/24"], "ports": [9443]}], [], []) == []
    assert (
        "networks: [192.0.2.7]" in plugin.problems(url, [{"networks": ["198.51.100.0/24"], "ports": [9443]}], [], [])[0]
    )


def test_nothing_to_reach_is_no_problem() -> None:
    assert plugin.problems("", [{"names": ["a.test"], "ports": [443]}], [], []) == []
    assert plugin.problems(SLACK, [], [], []) == []
    assert "not an absolute path" in plugin.problems("", [], [], [{"path": "backup", "hours": 1}])[0]
