"""Virtual environments are shared by what they are made of, and go when nobody leads to them."""

import dataclasses
import json
from pathlib import Path

import pytest

from releasectl import build, sandbox, store, venvs
from releasectl.config import Config
from releasectl.errors import Refusal

LOCK = "requirements.lock"


@pytest.fixture
def installed(monkeypatch):  # type: ignore[no-untyped-def]
    """What was asked of uv, by release; a file stands for what it installs."""
    asked: list[str] = []

    def sandboxed(unit, argv, properties, *_words):  # type: ignore[no-untyped-def]
        asked.append(unit.removeprefix("releasectl-build-"))
        place = Path(argv[6])
        assert f"BindPaths={place}" in properties
        (place / "bin").mkdir()
        (place / "bin" / "python").write_text("")

    monkeypatch.setattr(venvs, "sandboxed", sandboxed)
    monkeypatch.setattr(venvs, "give_to_build_user", lambda _config, *paths: [path.mkdir() for path in paths])
    monkeypatch.setattr(venvs, "make_root_owned", lambda _place: (10, 4096, 3))
    return asked


def unpacked(config: Config, release: str, lock: str) -> Path:
    """A release's code; what has no hash in ``lock`` gets one."""
    directory = config.release_dir(release)
    lock = lock if "--hash" in lock else f"{lock} --hash=sha256:0"
    (directory / "src").mkdir(parents=True)
    (directory / "src" / LOCK).write_text(lock)
    return directory


def test_the_same_lock_is_built_once_and_each_release_finds_it_at_its_own_place(config, installed) -> None:  # type: ignore[no-untyped-def]
    a, b = unpacked(config, "a", "django==5.2"), unpacked(config, "b", "django==5.2")
    assert venvs.provide(config, a, "a", LOCK).there is False
    assert venvs.provide(config, b, "b", LOCK).there is True
    assert installed == ["a"]
    assert (a / "venv").resolve() == (b / "venv").resolve()
    assert (b / "venv" / "bin" / "python").is_file()
    assert venvs.size(b) == (4096, 3)


def test_another_lock_is_another_one(config, installed) -> None:  # type: ignore[no-untyped-def]
    a, b = unpacked(config, "a", "django==5.2"), unpacked(config, "b", "django==5.2.1")
    venvs.provide(config, a, "a", LOCK)
    assert venvs.provide(config, b, "b", LOCK).there is False
    assert installed == ["a", "b"]
    assert (a / "venv").resolve() != (b / "venv").resolve()


@pytest.mark.parametrize(
    "change",
    [
        {"python_version": "3.12"},
        {"processes": ()},
        {"build_environment": {"CFLAGS": "-O3"}},
        {"requirements_extra": ("gunicorn==23.0.0 --hash=sha256:1",)},
        {"system": 'ID="other"'},
    ],
    ids=["python", "processes", "environment", "extra", "system"],
)
def test_so_it_is_when_it_is_made_with_something_else(config, installed, monkeypatch, change) -> None:  # type: ignore[no-untyped-def]
    venvs.provide(config, unpacked(config, "a", "django==5.2"), "a", LOCK)
    system = change.pop("system", venvs._system())
    monkeypatch.setattr(venvs, "_system", lambda: system)
    later = dataclasses.replace(config, **change)
    assert venvs.provide(later, unpacked(config, "b", "django==5.2"), "b", LOCK).there is False
    assert installed == ["a", "b"]


@pytest.mark.parametrize("option", ["-r base.lock", "--requirement base.lock", "  -c base.lock", "--no-binary :all:"])
def test_a_lock_that_reads_other_files_is_shared_by_nobody(config, installed, option) -> None:  # type: ignore[no-untyped-def]
    lock = f"django==5.2 \\\n    --hash=sha256:0\n{option}\n"
    for release in ("a", "b"):
        assert venvs.provide(config, unpacked(config, release, lock), release, LOCK).there is False
    assert installed == ["a", "b"]


def test_so_it_is_with_requirements_that_have_no_hashes(config, installed) -> None:  # type: ignore[no-untyped-def]
    config = dataclasses.replace(config, requirements_unhashed=True)
    for release in ("a", "b"):
        directory = unpacked(config, release, "")
        (directory / "src" / LOCK).write_text("django>=5\n")
        assert venvs.provide(config, directory, release, LOCK).there is False
    assert installed == ["a", "b"]


def test_an_app_that_needs_nothing_has_an_empty_lock(config, installed) -> None:  # type: ignore[no-untyped-def]
    for release in ("a", "b"):
        directory = unpacked(config, release, "")
        (directory / "src" / LOCK).write_text("# nothing\n")
        venvs.provide(config, directory, release, LOCK)
    assert installed == ["a"]


def test_a_lock_of_uv_is_shared_as_long_as_its_project_wants_the_same(config, installed) -> None:  # type: ignore[no-untyped-def]
    for release, wanted in (("a", "django"), ("b", "django"), ("c", "django, celery")):
        directory = unpacked(config, release, "")
        (directory / "src" / "uv.lock").write_text("version = 1\n")
        (directory / "src" / "pyproject.toml").write_text(f"# {wanted}\n")
        venvs.provide(config, directory, release, "uv.lock")
    assert installed == ["a", "c"]


def test_hashes_are_no_such_option(config, installed) -> None:  # type: ignore[no-untyped-def]
    lock = "django==5.2 \\\n    --hash=sha256:0 \\\n    --hash=sha256:1\n    # via -r requirements.in\n"
    for release in ("a", "b"):
        venvs.provide(config, unpacked(config, release, lock), release, LOCK)
    assert installed == ["a"]


def test_one_that_was_half_made_is_swept_and_made_anew(config, installed) -> None:  # type: ignore[no-untyped-def]
    a = unpacked(config, "a", "django==5.2")
    venvs.provide(config, a, "a", LOCK)
    place = (a / "venv").resolve()
    (place / venvs.RECORD).unlink()
    (a / "venv").unlink()
    assert venvs.sweep(config) == [place.name]
    assert venvs.provide(config, a, "a", LOCK).there is False
    assert installed == ["a", "a"]


def test_one_that_fails_leaves_nothing(config, installed, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def fails(*_words: object) -> None:
        raise Refusal("Installing requirements.lock failed.")

    monkeypatch.setattr(venvs, "sandboxed", fails)
    a = unpacked(config, "a", "django==5.2")
    with pytest.raises(Refusal, match="Installing"):
        venvs.provide(config, a, "a", LOCK)
    assert list(config.venvs.iterdir()) == []
    assert not (a / "venv").is_symlink()
    assert installed == []


def test_it_goes_with_the_last_release_that_leads_to_it(config, installed) -> None:  # type: ignore[no-untyped-def]
    for release, lock in (("a", "django==5.1"), ("b", "django==5.2"), ("c", "django==5.2")):
        venvs.provide(config, unpacked(config, release, lock), release, LOCK)
    kept = (config.release_dir("c") / "venv").resolve()
    assert venvs.prune(config) == []
    build.remove(config, "b")
    assert venvs.prune(config) == []
    build.remove(config, "a")
    assert len(venvs.prune(config)) == 1
    assert list(config.venvs.iterdir()) == [kept]
    assert (kept / "bin" / "python").is_file(), "what b shared with c went with b"
    assert installed == ["a", "b"]


def test_a_release_of_before_has_its_own_and_nothing_of_it_is_shared(config) -> None:  # type: ignore[no-untyped-def]
    directory = unpacked(config, "a", "django==5.2")
    (directory / "venv" / "bin").mkdir(parents=True)
    assert venvs.real(directory) is None
    assert venvs.size(directory) == (0, 0)
    assert venvs.prune(config) == []
    build.remove(config, "a")
    assert not directory.exists()


def test_a_build_sees_its_own_and_no_other(config, installed) -> None:  # type: ignore[no-untyped-def]
    a = unpacked(config, "a", "django==5.2")
    venvs.provide(config, a, "a", LOCK)
    properties = sandbox.build(config, a, [a / "static"])
    assert f"TemporaryFileSystem={config.venvs}:ro" in properties
    assert [one for one in properties if str(config.venvs) in one and one.startswith("Bind")] == [
        f"BindReadOnlyPaths={(a / 'venv').resolve()}"
    ]
    assert installed == ["a"]


def test_a_build_takes_what_serving_leaves_over(config) -> None:  # type: ignore[no-untyped-def]
    properties = sandbox.build(config, unpacked(config, "a", "django==5.2"), [])
    for one in ("CPUWeight=20", "Nice=10", "IOSchedulingClass=idle"):
        assert one in properties
        assert one in store.TRANSFER, "and so does what is pulled"


def test_an_artifact_without_a_lock_is_refused_by_its_name(config, installed) -> None:  # type: ignore[no-untyped-def]
    directory = config.release_dir("a")
    (directory / "src").mkdir(parents=True)
    with pytest.raises(Refusal, match=r"no requirements\.lock at its top"):
        venvs.provide(config, directory, "a", LOCK)
    assert installed == []


def test_its_record_says_what_it_is(config, installed) -> None:  # type: ignore[no-untyped-def]
    a = unpacked(config, "a", "django==5.2")
    venvs.provide(config, a, "a", LOCK)
    said = json.loads(((a / "venv") / venvs.RECORD).read_text())
    assert said["release"] == "a"
    assert said["key"].startswith((a / "venv").resolve().name)
    assert (said["bytes"], said["disk"], said["files"]) == (10, 4096, 3)
    assert installed == ["a"]
