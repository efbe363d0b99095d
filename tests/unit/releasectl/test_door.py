"""Taking a host out of what the edges choose from."""

from __future__ import annotations

import dataclasses

import pytest

from releasectl import health, hostctl
from releasectl.config import Config
from releasectl.door import DOOR, Door
from releasectl.errors import Refusal


@pytest.fixture
def door(config, systemd, monkeypatch):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(health, "gate", lambda *_args, **_more: None)
    return Door(dataclasses.replace(config, door=True, others=("app2",)), systemd)


def test_without_a_fleet_there_is_none(config, systemd) -> None:  # type: ignore[no-untyped-def]
    alone = Door(config, systemd)
    alone.ensure()
    assert alone.state() == "none"
    assert systemd.calls == []
    with pytest.raises(Refusal, match="only host of the app"):
        alone.drain("ada", "why not")
    with pytest.raises(Refusal, match="only host of the app"):
        Door(dataclasses.replace(config, door=True), systemd).drain("ada", "why not")
    assert alone.drained() is None


def test_a_host_is_taken_out_and_put_back(door, systemd) -> None:  # type: ignore[no-untyped-def]
    door.ensure()
    assert door.state() == "open"
    assert door.drain("ada", "new memory")
    assert systemd.calls[-2:] == [("start", DOOR), ("stop", DOOR)]
    assert door.state() == "shut"
    told = door.drained().public()
    assert (told["by"], told["because"]) == ("ada", "new memory")
    assert not door.drain("bob", "again"), "the first note stays"
    door.ensure()
    assert door.state() == "shut", "what somebody shut is not opened by the way"
    assert door.undrain()
    assert (door.state(), door.drained()) == ("open", None)
    assert not door.undrain()


def test_an_app_that_is_not_healthy_stays_out(door, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    door.drain("ada", "new memory")

    def gate(*_args: object, **_more: object) -> None:
        raise Refusal("/readyz is not healthy: it answered 503")

    monkeypatch.setattr(health, "gate", gate)
    with pytest.raises(Refusal, match="answered 503"):
        door.undrain()
    assert door.drained() is not None
    assert door.state() == "shut"


def test_a_note_that_cannot_be_read_is_one(door) -> None:  # type: ignore[no-untyped-def]
    door.path.write_text("{")
    assert door.drained() is not None


def test_it_may_be_opened_when_something_is_live_and_nobody_shut_it(host, door, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    config: Config = door.config
    monkeypatch.setattr(hostctl, "Systemd", lambda: door.systemd)
    assert hostctl.may_open(config) == 1
    host.activate("a", "ada")
    assert hostctl.may_open(config) == 0
    door.drain("ada", "new memory")
    assert hostctl.may_open(config) == 1
