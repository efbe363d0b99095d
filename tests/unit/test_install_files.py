"""plugins/modules/install_files.py: what it leaves on a disk, and what it leaves alone."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import stat
import zlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("install_files", ROOT / "plugins/modules/install_files.py")
assert spec
assert spec.loader
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

# The tests run as anybody: what they install is theirs.
OWN = {"owner": str(os.geteuid()), "group": str(os.getegid())}


def file(dest: Path, content: str | bytes, **options: Any) -> dict[str, Any]:
    raw = content.encode() if isinstance(content, str) else content
    return {"dest": str(dest), "content": raw, "mode": "0644", "validate": None, "sensitive": False, **OWN, **options}


def directory(path: Path, **options: Any) -> dict[str, Any]:
    return {"path": str(path), "mode": "0755", **OWN, **options}


def installer(check_mode: bool = False, **wanted: Any) -> Any:
    empty: dict[str, Any] = {"directories": [], "files": [], "links": [], "absent": [], "purges": [], "validate": None}
    return module.Installer({**empty, **wanted}, check_mode)


def install(check_mode: bool = False, **wanted: Any) -> list[str]:
    made = installer(check_mode, **wanted)
    made.run()
    changed: list[str] = made.changed_files
    return changed


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def snapshot(root: Path) -> dict[str, tuple[int, int, str]]:
    """Everything under a directory: name, inode, mode, content."""
    found = {}
    for path in sorted(root.rglob("*")):
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes().hex() if path.is_file() else ""
        found[str(path.relative_to(root))] = (path.lstat().st_ino, mode(path), content)
    return found


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Any:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_modes_are_exact_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    install(
        directories=[directory(tmp_path / "parent/private", mode="0750")],
        files=[file(tmp_path / "open", "x", mode="0664"), file(tmp_path / "parent/private/secret", "x", mode="0400")],
    )
    assert mode(tmp_path / "open") == 0o664
    assert mode(tmp_path / "parent") == 0o755
    assert mode(tmp_path / "parent/private") == 0o750
    assert mode(tmp_path / "parent/private/secret") == 0o400


def test_setgid_directory_keeps_its_bit(tmp_path: Path) -> None:
    install(directories=[directory(tmp_path / "shared", mode="2775")])
    assert mode(tmp_path / "shared") == 0o2775


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    wanted = {
        "directories": [directory(tmp_path / "d")],
        "files": [file(tmp_path / "d/f", "text\n")],
        "links": [{"path": str(tmp_path / "l"), "target": "d/f"}],
        "absent": [str(tmp_path / "gone")],
        "purges": [{"path": str(tmp_path / "d"), "keep": ["f"]}],
    }
    (tmp_path / "gone").write_text("")
    assert install(**wanted) == [str(tmp_path / name) for name in ("d", "d/f", "l", "gone")]
    before = snapshot(tmp_path)
    assert install(**wanted) == []
    assert snapshot(tmp_path) == before


def test_changed_content_is_a_new_file_under_the_old_name(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with path.open() as reader:
        install(files=[file(path, "new")])
        assert reader.read() == "old", "one who reads it meanwhile sees the whole old file"
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"], "nothing lies about"


def test_changed_mode_alone_keeps_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("same")
    path.chmod(0o777)
    inode = path.stat().st_ino
    made = installer(files=[file(path, "same", mode="0600")])
    made.run()
    assert (mode(path), path.stat().st_ino) == (0o600, inode)
    assert "mode 0777" in made.diffs[0]["before"]
    assert "mode 0600" in made.diffs[0]["after"]


def test_check_mode_says_what_would_change_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "stale").write_text("old\n")
    (tmp_path / "unwanted").mkdir()
    before = snapshot(tmp_path)
    made = installer(
        check_mode=True,
        directories=[directory(tmp_path / "new/dir")],
        files=[
            file(tmp_path / "new/dir/f", "x", owner="no-such-user-yet", validate="false %s"),
            file(tmp_path / "stale", "new\n"),
        ],
        links=[{"path": str(tmp_path / "l"), "target": "stale"}],
        absent=[str(tmp_path / "unwanted")],
        validate="false",
    )
    made.run()
    assert made.changed_files == [str(tmp_path / name) for name in ("new/dir", "new/dir/f", "stale", "l", "unwanted")]
    stale = made.diffs[2]
    assert (stale["before"], stale["after"]) == ("old\n", "new\n")
    assert snapshot(tmp_path) == before


def test_failing_validation_of_one_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    before = snapshot(tmp_path)
    with pytest.raises(module.Refused, match="refuses") as refusal:
        install(
            directories=[directory(tmp_path / "new")],
            files=[
                file(tmp_path / "a", "new"),
                file(tmp_path / "b", "bad", validate="sh -c 'echo line 7 is wrong; ! grep bad %s'"),
            ],
        )
    assert "line 7 is wrong" in str(refusal.value)
    assert snapshot(tmp_path) == before


def test_validation_sees_the_file_beside_its_destination_with_its_mode(tmp_path: Path) -> None:
    script = f"sh -c 'test $(dirname %s) = {tmp_path} && test $(stat -c %%a %s) = 440'".replace("%%", "%")
    install(files=[file(tmp_path / "sudoers", "x", mode="0440", validate=script)])
    assert (tmp_path / "sudoers").exists()


def test_failing_validation_of_the_set_takes_everything_back(tmp_path: Path) -> None:
    (tmp_path / "changed").write_text("old")
    (tmp_path / "opened").write_text("same")
    (tmp_path / "opened").chmod(0o600)
    (tmp_path / "link").symlink_to("changed")
    (tmp_path / "unwanted").mkdir()
    (tmp_path / "unwanted/inner").write_text("inner")
    before = snapshot(tmp_path)
    with pytest.raises(module.Refused, match="nothing was changed"):
        install(
            directories=[directory(tmp_path / "new/dir")],
            files=[
                file(tmp_path / "changed", "new"),
                file(tmp_path / "opened", "same", mode="0644"),
                file(tmp_path / "new/dir/f", "x"),
            ],
            links=[{"path": str(tmp_path / "link"), "target": "opened"}],
            absent=[str(tmp_path / "unwanted")],
            validate=f"sh -c 'grep -q new {tmp_path}/changed && exit 1'",
        )
    assert snapshot(tmp_path) == before


def test_failure_half_way_takes_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    before = snapshot(tmp_path)
    rename = os.rename
    failures = [OSError(28, "No space left on device")]

    def failing(source: str, target: str) -> None:
        if target == str(tmp_path / "b") and failures:
            raise failures.pop()
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="No space left"):
        install(files=[file(tmp_path / "a", "new"), file(tmp_path / "b", "new")])
    assert snapshot(tmp_path) == before


def test_symlink_in_a_files_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "f").symlink_to(target)
    install(files=[file(tmp_path / "f", "mine")])
    assert not (tmp_path / "f").is_symlink()
    assert target.read_text() == "precious"


def test_link_is_renamed_into_place_and_may_dangle(tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to("old")
    assert install(links=[{"path": str(link), "target": "releases/none"}]) == [str(link)]
    assert link.readlink() == Path("releases/none")


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"links": [{"path": "{}/dir", "target": "x"}]}, "is a directory, and shall be a symlink"),
        ({"files": [file(Path("{}/dir"), "x")]}, "is a directory, and shall be a file"),
        ({"directories": [directory(Path("{}/file"))]}, "is not a directory"),
        ({"files": [file(Path("{}/none/f"), "x")]}, "name it under directories"),
        ({"files": [file(Path("{}/f"), "x", owner="no-such-user")]}, "no user no-such-user"),
        ({"files": [file(Path("{}/f"), "x", group="no-such-group")]}, "no group no-such-group"),
        ({"files": [file(Path("{}/f"), "x", validate="no-such-program %s")]}, "is not on this host"),
        ({"files": [file(Path("{}/f"), "x", validate="true")]}, "has no %s"),
        ({"files": [file(Path("relative"), "x")]}, "not an absolute path"),
        ({"absent": ["/"]}, "mount point"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(tmp_path: Path, wanted: dict[str, Any], sentence: str) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("")
    before = snapshot(tmp_path)

    def placed(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{}", str(tmp_path))
        if isinstance(value, list):
            return [placed(entry) for entry in value]
        return {key: placed(entry) for key, entry in value.items()} if isinstance(value, dict) else value

    with pytest.raises(module.Refused, match=sentence):
        install(**placed(wanted))
    assert snapshot(tmp_path) == before


def test_purge_removes_what_the_tree_does_not_have_but_for_compiled_python(tmp_path: Path) -> None:
    for name in ("kept.py", "stale.py", "sub/kept.py", "sub/stale.py", "old/inner.py", "__pycache__/kept.pyc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    changed = install(purges=[{"path": str(tmp_path), "keep": ["kept.py", "sub", "sub/kept.py"]}])
    assert changed == [str(tmp_path / name) for name in ("old", "stale.py", "sub/stale.py")]
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "kept.py",
        "sub/kept.py",
        "__pycache__/kept.pyc",
    }


def test_sensitive_content_is_in_no_diff_and_no_refusal(tmp_path: Path) -> None:
    canary = "canary-8d1f"
    (tmp_path / "f").write_text(f"{canary}-old")
    made = installer(check_mode=True, files=[file(tmp_path / "f", canary, sensitive=True)])
    made.run()
    assert canary not in json.dumps(made.diffs)
    with pytest.raises(module.Refused) as refusal:
        install(files=[file(tmp_path / "f", canary, sensitive=True, validate="sh -c 'cat %s; false'")])
    assert canary not in str(refusal.value)


def test_binary_content_arrives_as_it_is(tmp_path: Path) -> None:
    content = bytes(range(256))
    made = installer(files=[file(tmp_path / "f", content)])
    made.run()
    assert (tmp_path / "f").read_bytes() == content
    assert made.diffs[0]["after"] == "(256 bytes that are not text)\n"


def test_payload_is_unpacked_as_the_action_packs_it() -> None:
    packed = {"files": [{"content": base64.b64encode("ü".encode()).decode()}]}
    payload = base64.b64encode(zlib.compress(json.dumps(packed).encode())).decode()
    assert module.unpack(payload)["files"][0]["content"] == "ü".encode()


@pytest.mark.parametrize("value", [420, "u=rw", "", "00644", "0988", None])
def test_mode_is_quoted_octal_digits(value: object) -> None:
    with pytest.raises(TypeError, match="in quotes"):
        module.octal_mode(value)
