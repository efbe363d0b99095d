"""The guard's parts, on a tree of the test's own: what it keeps, what it puts back, and what it says."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_under_test", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guard = load("roles/guard/files/guard.py")
action = load("plugins/action/lockout_guard.py")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree like a host's /etc, and programs that note how they were called."""
    etc = tmp_path / "etc"
    (etc / "ssh").mkdir(parents=True)
    (etc / "ssh" / "sshd_config").write_text("Port 22\n")
    (etc / "ssh" / "sshd_config").chmod(0o640)
    (etc / "ssh" / "link").symlink_to("sshd_config")
    (etc / "passwd").write_text("root\n")
    for home in ("a", "b"):
        (tmp_path / "home" / home / ".ssh").mkdir(parents=True)
        (tmp_path / "home" / home / ".ssh" / "authorized_keys").write_text(home)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "systemd-run", "ipset"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n')
        (programs / name).chmod(0o755)
    for family in ("iptables", "ip6tables"):
        (programs / f"{family}-save").write_text("#!/bin/sh\nprintf '*filter\\n:INPUT ACCEPT [0:0]\\nCOMMIT\\n'\n")
        (programs / f"{family}-restore").write_text(f"#!/bin/sh\ncat >{tmp_path}/{family}.restored\n")
        for name in ("save", "restore"):
            (programs / f"{family}-{name}").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    configuration = tmp_path / "guard.json"
    patterns = [str(etc / "ssh"), str(etc / "passwd"), str(etc / "absent"), str(tmp_path / "home/*/.ssh")]
    configuration.write_text(f'{{"paths": {patterns!r}, "units": ["ssh.service"]}}'.replace("'", '"'))
    monkeypatch.setattr(guard, "CONFIGURATION", configuration)
    return tmp_path


def tree(root: Path) -> dict[str, tuple[int, str]]:
    found = {}
    for path in sorted(root.rglob("*")):
        what = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path)] = (path.lstat().st_mode, what)
    return found


def calls(host: Path) -> list[str]:
    return (host / "calls").read_text().splitlines()


def wreck(host: Path) -> None:
    (host / "etc/ssh/sshd_config").write_text("Port 0\n")
    (host / "etc/ssh/sshd_config").chmod(0o666)
    (host / "etc/ssh/link").unlink()
    (host / "etc/ssh/link").mkdir()
    (host / "etc/ssh/extra").mkdir()
    (host / "etc/ssh/extra/deep").write_text("?")
    (host / "etc/passwd").unlink()
    (host / "etc/absent").write_text("now there")
    (host / "home/a/.ssh/authorized_keys").unlink()
    (host / "home/a/.ssh").rmdir()
    (host / "home/c/.ssh").mkdir(parents=True)


def test_everything_is_put_back_and_what_came_since_is_gone(host: Path) -> None:
    before = {**tree(host / "etc"), **tree(host / "home")}
    kept = guard.Guard(host / "state")
    kept.arm("token", 60, "a test", "me")
    wreck(host)
    answer = kept.fire(None, "asked")
    after = {**tree(host / "etc"), **tree(host / "home")}
    # The new home itself is nothing that lets people in; what would is gone from it.
    assert {path: found for path, found in after.items() if not path.endswith("/home/c")} == before
    assert answer["fired"]
    assert answer["last"]["rules"] == ["iptables", "ip6tables"]
    assert kept.status()["armed"] is None
    assert "systemctl restart ssh.service" in calls(host)


def test_what_did_not_change_is_left_alone(host: Path) -> None:
    kept = guard.Guard(host / "state")
    kept.arm("token", 60, "a test", "me")
    inode = (host / "etc/passwd").stat().st_ino
    (host / "etc/ssh/sshd_config").chmod(0o600)
    answer = kept.fire("token", "timer")
    assert answer["last"]["paths"] == [str(host / "etc/ssh/sshd_config")]
    assert (host / "etc/passwd").stat().st_ino == inode


def test_at_boot_only_files_are_put_back(host: Path) -> None:
    kept = guard.Guard(host / "state")
    kept.arm("token", 60, "a test", "me")
    (host / "calls").write_text("")
    kept.fire(None, "boot")
    assert not (host / "iptables.restored").exists()
    assert not [line for line in calls(host) if "restart" in line]


def test_a_table_that_was_not_there_is_emptied(host: Path) -> None:
    kept = guard.Guard(host / "state")
    kept.arm("token", 60, "a test", "me")
    kept.fire("token", "asked")
    restored = (host / "iptables.restored").read_text()
    assert restored.startswith("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")
    assert "*mangle\n" in restored
    assert "*raw\n" in restored
    assert "*nat" not in restored


def test_disarming_keeps_the_change_and_works_once(host: Path) -> None:
    kept = guard.Guard(host / "state")
    kept.arm("token", 60, "a test", "me")
    (host / "etc/passwd").write_text("changed")
    kept.disarm("token")
    assert kept.fire(None, "asked")["fired"] is False
    assert (host / "etc/passwd").read_text() == "changed"
    with pytest.raises(guard.Refused, match="Nothing is armed any more: it was disarmed at"):
        kept.disarm("token")


def test_disarming_after_it_has_fired_fails(host: Path) -> None:
    kept = guard.Guard(host / "state")
    kept.arm("token", 60, "a test", "me")
    kept.fire("token", "timer")
    with pytest.raises(guard.Refused, match=r"everything was put back at .* \(timer\), 0 paths; a test\."):
        kept.disarm("token")


def test_another_runs_timer_does_nothing(host: Path) -> None:
    kept = guard.Guard(host / "state")
    kept.arm("mine", 60, "a test", "me")
    assert kept.fire("another", "timer")["fired"] is False
    assert kept.status()["armed"]["token"] == "mine"


def test_a_crash_while_arming_leaves_nothing_armed_and_is_cleaned_up(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = guard.Guard(host / "state")
    (host / "state/new.dead").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(guard, "write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            kept.arm("token", 60, "a test", "me")
    assert kept.status()["armed"] is None
    kept.arm("token", 60, "a test", "me")
    assert sorted(path.name for path in (host / "state").iterdir()) == ["armed", "lock"]


def test_without_a_timer_nothing_is_armed(host: Path) -> None:
    (host / "bin/systemd-run").write_text("#!/bin/sh\necho no bus; exit 1\n")
    with pytest.raises(guard.Refused, match="systemd took no timer, so nothing was armed: no bus"):
        guard.Guard(host / "state").arm("token", 60, "a test", "me")
    assert guard.Guard(host / "state").status()["armed"] is None


# What the action says


def test_a_token_names_this_run_on_this_host() -> None:
    first = action.token("app1.example.com", os.getpid())
    assert first == action.token("app1.example.com", os.getpid())
    assert first.startswith(f"app1-example-com-{os.getpid()}-")
    assert first != action.token("app2.example.com", os.getpid())


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        ({"msg": "no\n such  key."}, "Configure sshd: no such key."),
        ({"stderr": "Bad option"}, "Configure sshd: Bad option."),
        ({}, "Configure sshd: no reason was given."),
    ],
)
def test_the_cause_is_one_sentence(result: dict[str, Any], sentence: str) -> None:
    assert action.cause("Configure sshd", result) == sentence


def test_what_became_of_the_host_is_said() -> None:
    def say(answer: dict[str, Any] | None) -> str:
        text: str = action.told("app1", answer, "t", "ops", "Mend it.")
        return text

    fired = {"token": "t", "outcome": "fired", "why": "timer", "paths": ["/etc/ssh"]}
    assert say({"last": fired}) == (
        "app1 was put back as it was, by its own timer (1 path), and ops may log in as before. Mend it."
    )
    assert "at its reboot (no file, for none was changed)" in say({"last": {**fired, "why": "boot", "paths": []}})
    # Of an earlier run.
    assert say({"last": {**fired, "token": "another"}}) == "app1 was left as it was."
    assert say({"last": None}) == "app1 was left as it was."
    assert "cannot be asked" in say(None)
