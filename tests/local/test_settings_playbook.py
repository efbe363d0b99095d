"""settings.yml over hosts that are this machine, with a stand-in for their releasectl: who tries, who goes back."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.local.controller import Controller
from tests.receivers import Hook

CANARY = "canary-1b7e"
HOSTS = ("app1", "app2", "worker1")
# What each host's releasectl answers; what they were asked is noted. A host knows itself by its directory.
SUDO = """#!/bin/sh
case "$SLIPWAY_HOST_DIR" in '') name=unknown ;; *) name=$(basename "$SLIPWAY_HOST_DIR") ;; esac
echo "$name $3 $4" >> {place}/asked
case "$3 $4" in "settings --take-back="*)
  echo '{{"ok": true, "changed": true, "generation": "shop-1.3", "message": "Back."}}'
  exit ;;
esac
case $3 in
  lock) echo '{{"ok": true, "changed": true, "token": "t", "message": "Yours."}}' ;;
  settings|status) cat {place}/$name/$3 ;;
  *) echo '{{"ok": true, "changed": true, "message": "Done."}}' ;;
esac
"""
GOOD = {
    "ok": True, "changed": True, "release": "shop-1", "generation": "shop-1.2", "message": "shop-1 serves with env.2",
    "settings": {"version": "env.2"},
}  # fmt: skip
STATUS = {"ok": True, "changed": False, "message": "", "settings_adopted": None}
REFUSED = {"ok": False, "changed": False, "message": "env.2 was taken back (changed GREETING), since it answered 500."}


class Fleet(Controller):
    """Three hosts, each with a store of its own."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        hosts = {}
        for name in HOSTS:
            (place / name).mkdir()
            self.answers(name, GOOD)
            self.answers(name, STATUS, "status")
            shell = place / f"{name}.sh"
            shell.write_text(f'#!/bin/sh\nSLIPWAY_HOST_DIR={place}/{name} exec /bin/sh "$@"\n')
            shell.chmod(0o755)
            hosts[name] = {
                "ansible_connection": "local", "ansible_shell_executable": str(shell),
                "app_config_dir": str(place / name), "app_state_dir": str(place / name),
            }  # fmt: skip
        apps = {name: hosts[name] for name in ("app1", "app2")}
        inventory = {
            "app": {"hosts": apps}, "worker": {"hosts": {"worker1": hosts["worker1"]}},
            "scheduler": {"hosts": {"worker1": None}}, "lab": {"hosts": dict.fromkeys(HOSTS)},
        }  # fmt: skip
        (place / "hosts.yml").write_text(json.dumps(inventory))
        (place / "sudo").write_text(SUDO.format(place=place))

    def answers(self, name: str, answer: dict[str, Any], verb: str = "settings") -> None:
        (self.place / name / verb).write_text(json.dumps(answer) + "\n")

    @property
    def asked(self) -> list[str]:
        """What they were asked to do, to look left aside."""
        path = self.place / "asked"
        told = [" ".join(line.split()) for line in path.read_text().splitlines()] if path.exists() else []
        return [words for words in told if words.split()[1] != "status"]

    def settings(self, *words: str, **given: Any) -> Any:
        play = self.place / "settings.yml"
        root = Path(__file__).resolve().parents[2]
        # As playbooks/settings.yml, whose first play looks at every variable of an environment.
        text = (root / "playbooks/settings.yml").read_text().replace("{{ playbook_dir }}", str(root / "playbooks"))
        before, _, after = text.partition("    - name: Check the variables of every role\n")
        _, _, rest = after.partition("    - name: Check the app's settings\n")
        play.write_text(before + "    - name: Check the app's settings\n" + rest)
        known = {
            "app_name": "shop", "app_admin_user": "ada", "ansible_become": False, "app_settings_schema": {},
            "app_secrets": {}, "secrets": {}, "app_env_dir": "{{ app_config_dir }}/env", "envdir_ca_certificates": [],
            "ansible_python_interpreter": sys.executable,
        }  # fmt: skip
        return self.play_file(play, *words, **{**known, **given})

    def link(self, name: str, which: str = "env") -> str:
        return str((self.place / name / which).readlink())


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = Fleet(tmp_path)
    first = made.settings(app_settings={"GREETING": CANARY, "OLD": "x"})
    assert first.returncode == 0, first.stdout + first.stderr
    (tmp_path / "asked").unlink()
    return made


def last(run: Any) -> str:
    return str(run.stdout.strip().splitlines()[-1])


def test_the_first_host_proves_them_before_the_others_and_all_have_one_key(fleet: Fleet) -> None:
    run = fleet.settings("--diff", app_settings={"GREETING": f"{CANARY}-2", "NEW": "y"})
    assert run.returncode == 0, run.stdout + run.stderr
    assert (
        "New settings are in force. app1, app2, worker1: changed GREETING; added NEW; removed OLD. shop-1 was restarted"
        " with them on app1, app2, worker1." in last(run)
    )
    assert CANARY not in run.stdout + run.stderr
    verbs = [words.split()[:2] for words in fleet.asked]
    assert {name for name, verb in verbs[:3] if verb == "lock"} == set(HOSTS), "all are claimed before one tries them"
    assert run.stdout.count("PLAY [Put them in force") == 2, "one host, then the others"
    assert verbs[3] == ["app1", "settings"]
    assert {words.split()[2] for words in fleet.asked if words.split()[1] == "settings"} == {"--version=env.2"}
    assert {name for name, verb in verbs[4:6] if verb == "settings"} == {"app2", "worker1"}
    assert {name for name, verb in verbs[6:] if verb == "unlock"} == set(HOSTS)
    keys = {(fleet.place / name / "fingerprint.key").read_text() for name in HOSTS}
    assert len(keys) == 1
    assert {stat.S_IMODE((fleet.place / name / "fingerprint.key").stat().st_mode) for name in HOSTS} == {0o600}
    assert all((fleet.link(name), fleet.link(name, "env.next")) == ("env.1", "env.2") for name in HOSTS)
    assert next(iter(keys)).strip() not in run.stdout


def test_when_a_later_host_refuses_those_that_switched_go_back(fleet: Fleet) -> None:
    fleet.answers("app2", REFUSED)
    run = fleet.settings(app_settings={"GREETING": "bad", "OLD": "x"})
    assert run.returncode != 0
    assert (
        "The settings were not changed. app2: env.2 was taken back (changed GREETING), since it answered 500."
        in last(run)
    )
    back = {words for words in fleet.asked if "--take-back" in words}
    assert back == {f"{name} settings --take-back=env.2" for name in HOSTS}
    assert [words.split()[1] for words in fleet.asked[-3:]] == ["unlock"] * 3


def test_a_host_that_has_them_since_an_earlier_run_goes_back_as_well_or_is_named(fleet: Fleet) -> None:
    """As after `--limit app1`, or when the machine that ran it died after the first batch."""
    old = {"ok": True, "changed": False, "message": "", "settings_fingerprint": "k-old", "settings_adopted": None}
    adopted = {"version": "env.2", "before": "env.1", "fingerprint": "k-old"}
    wanted = {"GREETING": f"{CANARY}-2", "OLD": "x"}
    assert fleet.settings("--limit=app1", app_settings=wanted).returncode == 0
    (fleet.place / "app1/env.next").rename(fleet.place / "app1/env")
    fleet.answers("app2", REFUSED)
    for name in HOSTS:
        fleet.answers(name, old, "status")
    fleet.answers("app1", {**old, "settings_fingerprint": "k-new", "settings_adopted": adopted}, "status")
    (fleet.place / "asked").unlink()
    run = fleet.settings(app_settings=wanted)
    assert run.returncode != 0
    assert {words.split()[0] for words in fleet.asked if "--take-back=env.2" in words} == set(HOSTS)
    assert "the settings of before are in force on app1, app2, worker1." in last(run)


def test_when_the_first_host_refuses_no_other_tries_them(fleet: Fleet) -> None:
    fleet.answers("app1", REFUSED)
    assert fleet.settings(app_settings={"GREETING": "bad", "OLD": "x"}).returncode != 0
    tried = [words for words in fleet.asked if words.split()[1] == "settings" and "--take-back" not in words]
    assert [words.split()[0] for words in tried] == ["app1"]


def test_check_mode_tells_names_asks_nobody_and_changes_nothing(fleet: Fleet) -> None:
    run = fleet.settings("--check", "--diff", app_settings={"GREETING": f"{CANARY}-2"})
    assert run.returncode == 0, run.stdout + run.stderr
    assert "+GREETING (new value)" in run.stdout
    assert "-OLD" in run.stdout
    assert "Settings would change. app1, app2, worker1: changed GREETING; removed OLD. Nothing was done" in last(run)
    assert CANARY not in run.stdout + run.stderr
    assert fleet.asked == []
    assert all(not (fleet.place / name / "env.next").is_symlink() for name in HOSTS)


def test_what_cannot_be_carried_is_refused_by_name_before_a_host_is_asked(fleet: Fleet) -> None:
    run = fleet.settings(app_settings={"FEATURE": True, "KEY": f"{CANARY}\u0000"})
    assert run.returncode != 0
    assert "FEATURE" in run.stdout
    assert "KEY holds a NUL" in run.stdout
    assert CANARY not in run.stdout + run.stderr
    assert fleet.asked == []


def test_a_host_whose_releasectl_is_older_is_refused_in_one_sentence_before_anything(fleet: Fleet) -> None:
    fleet.answers("app2", {"ok": True, "changed": False, "message": "", "settings_current": "env.1"}, "status")
    run = fleet.settings(app_settings={"GREETING": f"{CANARY}-2"})
    assert run.returncode != 0
    assert "The releasectl of app2 is older than this repository" in run.stdout
    assert "playbooks/site.yml --limit app2' first" in run.stdout
    assert fleet.asked == []
    assert all(not (fleet.place / name / "env.next").is_symlink() for name in HOSTS)


def test_a_notice_tells_names_and_one_that_has_no_news_is_not_sent(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    hook = Hook(tmp_path / "hook")
    try:
        notices = [{"kind": "webhook", "url": hook.url, "ca_certificate": hook.authority}]
        run = fleet.settings(app_settings={"GREETING": f"{CANARY}-2", "OLD": "x"}, release_notices=notices)
        assert run.returncode == 0, run.stdout + run.stderr
        (told,) = hook.bodies
        assert (told["event"], told["outcome"], sorted(told["hosts"])) == ("settings", "success", sorted(HOSTS))
        assert "changed GREETING" in told["text"]
        assert CANARY not in json.dumps(told)
        for name in HOSTS:
            (fleet.place / name / "env.next").rename(fleet.place / name / "env")
            fleet.answers(name, {"ok": True, "changed": False, "message": "In force."})
        again = fleet.settings(app_settings={"GREETING": f"{CANARY}-2", "OLD": "x"}, release_notices=notices)
        assert "The settings are in force on app1, app2, worker1 already, nothing was changed." in last(again)
        assert len(hook.bodies) == 1
    finally:
        hook.close()
