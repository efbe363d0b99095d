"""site_check.yml's look at the app's settings, by a play: what an operator reads who set one wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.controller import ROOT, Controller

CANARY = "canary-90be"
SCHEMA = {
    "SECRET_KEY": {"description": "Signs.", "secret": True, "pattern": ".{16,}", "means": "16 characters or more"},
    "GREETING": {"description": "Says hello.", "required": False},
}


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def check(controller: Controller, settings: dict[str, object]) -> tuple[int, str]:
    play = controller.place / "check.yml"
    role = f"{{name: {ROOT}/roles/envdir, tasks_from: check}}"
    play.write_text(f"- hosts: app1\n  gather_facts: false\n  tasks:\n    - import_role: {role}\n")
    run = controller.play_file(play, "-vvv", app_settings=settings, app_settings_schema=SCHEMA)
    return run.returncode, run.stdout + run.stderr


def test_good_settings_pass(controller: Controller) -> None:
    code, said = check(controller, {"SECRET_KEY": "{{ 'x' * 16 }}", "GREETING": "Hello"})
    assert code == 0, said
    assert "2 settings are as app_settings_schema has them" in said


def test_all_findings_come_at_once_without_a_value(controller: Controller) -> None:
    code, said = check(controller, {"SECRET_KEY": CANARY, "GREETNG": "x", "OTHER": "{{ not_there }}"})
    assert code != 0
    for words in (
        "SECRET_KEY is not 16 characters or more",
        "did you mean GREETING?",
        "OTHER in app_settings cannot be",
    ):
        assert words in said
    assert "Nothing was changed." in said
    assert CANARY not in said
