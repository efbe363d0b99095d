"""The module envdir: what it carries, what it refuses, and that its versions are whole."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from releasectl.settings import fingerprint

SOURCE = Path(__file__).parents[2] / "plugins/modules/envdir.py"
spec = importlib.util.spec_from_file_location("slipway_envdir", SOURCE)
assert spec is not None
assert spec.loader is not None
envdir = importlib.util.module_from_spec(spec)
spec.loader.exec_module(envdir)

CANARY = "canary-5e1f-value"


def put(store, settings, keep=3, pins=None, check=False, candidate=False):
    return envdir.apply(store, envdir.encode_all(settings, []), keep, pins, check, candidate)


@pytest.fixture(params=[0o000, 0o077], ids=["umask 000", "umask 077"])
def store(tmp_path, request):
    old = os.umask(request.param)
    yield envdir.Store(str(tmp_path / "env"))
    os.umask(old)


def read(store, name):
    return Path(store.path, name).read_bytes()


def names(directory):
    return sorted(path.name for path in Path(directory).iterdir())


def mode(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


def test_a_newline_is_stored_as_nul_so_that_the_file_has_one_line(store):
    put(store, {"KEY": "first\nsecond\n", "PLAIN": "x", "NUMBER": 8000, "EMPTY": ""})
    assert read(store, "KEY") == b"first\0second\0\n"
    assert read(store, "NUMBER") == b"8000\n"
    assert read(store, "EMPTY") == b"\n", "an empty file would unset the variable"


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("A", "x\0y", "NUL"),
        ("A", "x ", "blank"),
        ("A", "x\t", "blank"),
        ("A", "x\n ", "blank"),
        ("A", "x\r\ny", "control"),
        ("A", "\x7f", "control"),
        ("A", True, "truth"),
        ("A", None, "empty"),
        ("A", ["x"], "text"),
        ("A", 1.5, "text"),
        ("A", "\ud800", "UTF-8"),
        ("A", "x" * 131072, "bytes long"),
        ("1A", "x", "name"),
        ("A-B", "x", "name"),
        ("A\n", "x", "name"),
        ("", "x", "name"),
        ("../A", "x", "name"),
        (".A", "x", "name"),
    ],
)
def test_what_cannot_be_carried_is_refused_in_one_sentence(name, value, word):
    with pytest.raises(envdir.Refused) as refusal:
        envdir.encode(name, value)
    sentence = str(refusal.value)
    assert word in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_the_longest_value_that_the_kernel_takes_is_carried(tmp_path):
    value = "x" * (131072 - len("A") - 2)
    assert envdir.encode("A", value) == value.encode() + b"\n"
    done = subprocess.run([sys.executable, "-c", ""], env={"A": value}, check=False)
    assert done.returncode == 0
    with pytest.raises(OSError, match="too long"):
        subprocess.run([sys.executable, "-c", ""], env={"A": value + "x"}, check=False)


def test_a_reserved_name_is_refused():
    with pytest.raises(envdir.Refused, match="RELEASE_ID"):
        envdir.encode_all({"RELEASE_ID": "x"}, ["RELEASE_ID"])


def test_only_the_owner_reads_whatever_the_umask_is(store):
    put(store, {"A": "1"})
    directory = store.directory(1)
    assert mode(directory) == 0o700
    assert mode(f"{directory}/A") == 0o600


def test_a_change_is_a_new_directory_and_the_second_run_changes_nothing(store):
    first, _ = put(store, {"A": "1", "B": "2"})
    assert (first["changed"], first["version"]) == (True, "env.1")
    again, _ = put(store, {"B": "2", "A": "1"})
    assert (again["changed"], again["version"]) == (False, "env.1")
    held = os.open(store.path, os.O_RDONLY)
    second, _ = put(store, {"A": "1", "C": "3"})
    assert second["version"] == "env.2"
    assert (second["added"], second["removed"], second["changed_names"]) == (["C"], ["B"], [])
    assert str(Path(store.path).readlink()) == "env.2"
    assert names(store.path) == ["A", "C"]
    assert names(f"/proc/self/fd/{held}") == ["A", "B"], "who had opened the old version still has the whole of it"
    os.close(held)


def test_check_mode_says_the_same_and_touches_nothing(store):
    would, _ = put(store, {"A": "1"}, check=True)
    assert would["changed"]
    assert names(store.parent) == []
    put(store, {"A": "1"})
    would, _ = put(store, {"A": "2"}, check=True)
    assert (would["changed"], would["changed_names"], would["version"]) == (True, ["A"], "env.2")
    assert read(store, "A") == b"1\n"


def test_the_difference_has_names_and_no_value(store):
    put(store, {"A": CANARY, "B": "old", "D": "1"})
    result, diff = put(store, {"A": CANARY + "2", "C": CANARY, "D": "1"})
    assert diff["before"] == "A\nB\nD\n"
    assert diff["after"] == "A (new value)\nC\nD\n"
    assert CANARY not in json.dumps([result, diff])


def test_a_hand_edit_is_mended_by_a_new_version_and_a_loose_mode_in_place(store):
    put(store, {"A": "1"})
    Path(store.directory(1)).chmod(0o750)
    Path(store.directory(1), "A").chmod(0o644)
    result, diff = put(store, {"A": "1"}, check=True)
    assert result["changed"]
    assert "open to others" in diff["before"]
    result, _ = put(store, {"A": "1"})
    assert (result["changed"], result["version"]) == (True, "env.1")
    assert mode(f"{store.directory(1)}/A") == 0o600
    Path(store.directory(1), "A").write_text("0\n")
    result, _ = put(store, {"A": "1"})
    assert (result["changed"], result["version"]) == (True, "env.2")


def test_old_versions_go_but_pinned_ones_and_the_last_few_stay(store, tmp_path):
    pins = tmp_path / "generations"
    pins.mkdir()
    for n in range(1, 8):
        if n == 3:
            (pins / "shop-1.3").write_text(json.dumps({"settings": "env.2", "other": "/x/env.4.bak"}))
        put(store, {"A": str(n)}, keep=2, pins=str(pins))
    assert store.versions() == [2, 5, 6, 7]
    (pins / "shop-1.3").unlink()
    result, _ = put(store, {"A": "7"}, keep=2, pins=str(pins))
    assert (result["changed"], result["pruned"]) == (True, ["env.2"])


def test_a_number_that_a_generation_is_pinned_to_is_not_given_again(store, tmp_path):
    pins = tmp_path / "generations"
    pins.mkdir()
    (pins / "x.1").write_text('{"settings": "env.9"}')
    result, _ = put(store, {"A": "1"}, pins=str(pins))
    assert result["version"] == "env.10"


def test_what_a_run_that_died_left_behind_is_cleared_and_a_lost_target_replaced(store):
    put(store, {"A": "1"})
    Path(store.parent, ".env.dead").mkdir()
    Path(store.parent, ".env.link").symlink_to("env.1")
    Path(store.directory(1)).rename(Path(store.parent, "aside"))
    result, _ = put(store, {"A": "1"})
    assert result["changed"]
    assert read(store, "A") == b"1\n"
    assert names(store.parent) == ["aside", "env", "env.1"]


def test_a_directory_in_the_place_of_the_link_is_refused(store):
    Path(store.path).mkdir()
    with pytest.raises(envdir.Refused, match="not a symbolic link"):
        put(store, {"A": "1"})


def run_module(arguments):
    """Run the module as Ansible does, arguments on standard input."""
    done = subprocess.run(
        [sys.executable, str(SOURCE)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("extra", [{}, {"A-B": CANARY}, {"BLANK": CANARY + " "}])
def test_no_value_leaves_the_module(tmp_path, extra):
    code, output = run_module(
        {"path": str(tmp_path / "env"), "settings": {"SECRET": CANARY, "ONE": "1", **extra}, "_ansible_diff": True}
    )
    assert CANARY not in output
    assert (code == 0) is not bool(extra)


def test_short_values_do_not_blot_out_the_result(tmp_path):
    _, output = run_module({"path": str(tmp_path / "env"), "settings": {"ONE": "1", "E": "e"}})
    assert json.loads(output)["version"] == "env.1"


# A change that waits to be tried


def test_a_candidate_waits_beside_what_is_in_force(store):
    first, _ = put(store, {"A": "1"}, candidate=True)
    assert (first["waiting"], first["in_force"]) == (False, "env.1"), "there is nothing that it could replace"
    second, diff = put(store, {"A": "2"}, candidate=True)
    assert (second["changed"], second["version"], second["in_force"]) == (True, "env.2", "env.1")
    assert str(Path(store.path).readlink()) == "env.1"
    assert str(Path(f"{store.path}.next").readlink()) == "env.2"
    assert (second["changed_names"], diff["after"]) == (["A"], "A (new value)\n")
    again, _ = put(store, {"A": "2"}, candidate=True)
    assert (again["changed"], again["waiting"], again["version"]) == (False, True, "env.2"), "it waits still"
    third, _ = put(store, {"A": "3"}, candidate=True)
    assert (third["version"], str(Path(f"{store.path}.next").readlink())) == ("env.3", "env.3")


def test_going_back_to_what_is_in_force_lets_nothing_wait(store):
    put(store, {"A": "1"}, candidate=True)
    put(store, {"A": "2"}, candidate=True)
    would, _ = put(store, {"A": "1"}, candidate=True, check=True)
    assert would["changed"]
    assert Path(f"{store.path}.next").is_symlink()
    result, _ = put(store, {"A": "1"}, candidate=True)
    assert (result["changed"], result["waiting"], result["version"]) == (True, False, "env.1")
    assert not Path(f"{store.path}.next").is_symlink()
    assert not put(store, {"A": "1"}, candidate=True)[0]["changed"]


def test_check_mode_of_a_candidate_touches_nothing(store):
    put(store, {"A": "1"}, candidate=True)
    before = names(store.parent)
    would, _ = put(store, {"A": "2"}, candidate=True, check=True)
    assert (would["changed"], would["waiting"], would["version"]) == (True, True, "env.2")
    assert names(store.parent) == before


def test_once_tried_the_next_run_has_nothing_to_do(store):
    for number in range(1, 8):
        put(store, {"A": str(number)}, keep=2, candidate=True)
        if number > 1:
            store.point(number)
            Path(f"{store.path}.next").unlink()
        assert not put(store, {"A": str(number)}, keep=2, candidate=True)[0]["changed"], "nor anything to remove"
    assert store.versions() == [5, 6, 7]


def test_what_was_refused_gives_its_number_to_no_other(store):
    put(store, {"A": "1"}, candidate=True)
    put(store, {"A": "bad"}, candidate=True)
    Path(f"{store.path}.next").unlink()
    assert put(store, {"A": "2"}, candidate=True)[0]["version"] == "env.3"


def test_a_loose_mode_is_mended_in_force_and_waiting(store):
    put(store, {"A": "1"}, candidate=True)
    put(store, {"A": "2"}, candidate=True)
    for number in (1, 2):
        Path(store.directory(number), "A").chmod(0o644)
    assert put(store, {"A": "2"}, candidate=True)[0]["changed"]
    assert [mode(f"{store.directory(number)}/A") for number in (1, 2)] == [0o600, 0o600]


# The key of fingerprints


def test_the_key_is_made_once_and_the_owners_alone(store):
    path = Path(store.parent, "fingerprint.key")
    would = envdir.fingerprint_key(str(path), check=True)
    assert would == {"key": "", "key_file": str(path), "key_made": True, "key_changed": True}
    assert not path.exists()
    made = envdir.fingerprint_key(str(path), check=False)
    key = path.read_text().strip()
    assert (len(bytes.fromhex(key)), mode(path)) == (32, 0o600)
    again = envdir.fingerprint_key(str(path), check=False)
    assert (again["key"], again["key_made"], again["key_changed"]) == (made["key"], False, False)
    assert path.read_text().strip() == key
    path.chmod(0o644)
    assert envdir.fingerprint_key(str(path), check=False)["key_changed"]
    assert mode(path) == 0o600


def test_the_module_and_the_host_call_a_key_the_same(store):
    path = Path(store.parent, "fingerprint.key")
    named = envdir.fingerprint_key(str(path), check=False)["key"]
    assert fingerprint(path.read_text().strip(), {}).partition("-")[0] == named


def test_the_key_does_not_leave_the_module(tmp_path):
    place = tmp_path / "fingerprint.key"
    code, output = run_module(
        {"path": str(tmp_path / "env"), "settings": {"A": "1"}, "fingerprint_key": str(place), "candidate": True}
    )
    assert code == 0
    assert json.loads(output)["key_made"] is True
    assert place.read_text().strip() not in output
