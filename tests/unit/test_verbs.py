"""Every verb that the command line knows is one that the job can run."""

from __future__ import annotations

import argparse
from pathlib import Path
from unittest.mock import Mock

import pytest

from releasectl import cli
from releasectl.config import Config
from releasectl.state import State

AT_ONCE = {"status", "history", "preview", "dumps", "lock", "unlock"}


def known() -> list[str]:
    groups = [action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return sorted(groups[0].choices)


@pytest.mark.parametrize("verb", sorted(set(known()) - AT_ONCE))
def test_every_verb_is_run(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(releases=tmp_path / "releases", state=tmp_path / "state", events=tmp_path)
    config.releases.mkdir()
    config.state.mkdir()
    verbs = cli.Verbs(config, {"verb": verb, "actor": "test"}, lambda _line: None)
    verbs.lifecycle = Mock(config=config)
    verbs.lifecycle.store.read.return_value = State()
    verbs.lifecycle.reconcile.return_value = ["an interrupted switch was taken back"]
    for name in [name for name in dir(verbs) if name.startswith("do_")]:
        monkeypatch.setattr(verbs, name, lambda name=name: {"ran": name})
    answer = verbs.run()
    if verb == "reconcile":
        assert answer["changed"]
        assert "taken back" in str(answer["message"])
    else:
        assert answer == {"ran": f"do_{verb}"}
