"""What the repository depends on is said in several places, and each says the same."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.contracts import sources
from tests.contracts.sources import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
COLLECTIONS = {entry["name"]: entry["version"] for entry in sources.load(ROOT / "requirements.yml")["collections"]}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bundled(collection: str) -> str:
    """The version of a collection that the pip package `ansible` carries."""
    found = importlib.util.find_spec("ansible_collections")
    assert found
    for place in found.submodule_search_locations or []:
        manifest = Path(place) / collection.replace(".", "/") / "MANIFEST.json"
        if manifest.is_file():
            version: str = json.loads(manifest.read_text())["collection_info"]["version"]
            return version
    raise AssertionError(f"the bundle has no {collection}")


def locked() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s\\]+)", LOCK, re.MULTILINE))


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_collections_are_those_of_the_bundle(collection: str) -> None:
    assert COLLECTIONS[collection] == bundled(collection)


def test_collections_are_those_that_are_used() -> None:
    files = sources.tracked("roles/*.yml", "playbooks/*.yml", "molecule/*.yml")
    used = set()
    for path in files:
        for match in re.finditer(r"^\s*(?:- )?([a-z_]+\.[a-z_]+)\.[a-z_0-9]+:", path.read_text(), re.MULTILINE):
            used.add(match[1])
    used -= {"ansible.builtin"}
    assert used <= set(COLLECTIONS), "requirements.yml lacks what these use"


def test_the_lock_is_of_what_the_project_names() -> None:
    for requirement in PROJECT["dependencies"]:
        name = re.split(r"[\[<>=!~ ]", requirement)[0].lower()
        assert name in locked(), f"{name} is not in requirements.lock: run `make lock`"
        if "==" in requirement:
            assert locked()[name] == requirement.split("==")[1]


def test_what_is_installed_is_what_is_locked() -> None:
    for name in ("ansible", "ansible-core", "ansible-lint", "molecule", "pytest-testinfra"):
        assert importlib.metadata.version(name) == locked()[name]


def test_everything_locked_has_its_hashes() -> None:
    entries = re.split(r"^(?=[a-z0-9._-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > 30
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("path", sources.tracked("*.lock"), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_lock_holds_an_address(path: Path) -> None:
    text = path.read_text()
    for word in ("://", "index-url", "find-links", "@ file", "trusted-host"):
        assert word not in text
