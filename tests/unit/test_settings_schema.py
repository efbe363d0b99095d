"""The schema of the app's settings: what it refuses in itself and in settings, and the example that it makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from plugins.action import check_settings
from plugins.settings import example, schema

ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-7d21"
SCHEMA = {
    "DATABASE_URL": {
        "description": "Its database.",
        "secret": True,
        "pattern": "postgres://.+",
        "means": "a URL of PostgreSQL",
    },
    "SENTRY_DSN": {"description": "Where errors go.", "required": ["production"], "secret": True},
    "GREETING": {"description": "What the page says.", "required": False, "default": "Hello"},
}


def found(values, environment="production", clear=None, given=SCHEMA):
    return schema.findings(schema.parse(given), values, environment, clear or {}, ["RELEASE_ID"])


def test_what_is_as_it_should_be_is_passed_over():
    assert found({"DATABASE_URL": "postgres://db/app", "SENTRY_DSN": "https://x", "GREETING": "Hi\nyou"}) == []
    assert found({"DATABASE_URL": "postgres://db/app"}, "staging") == []


def test_all_is_told_at_once_and_no_value_is_told():
    values = {
        "DATABASE_URL": f"mysql://{CANARY}", "GREETNIG": CANARY, "RELEASE_ID": CANARY, "GREETING": f"{CANARY} ",
        "SENTRY_DSN": "",
    }  # fmt: skip
    told = found(values)
    assert len(told) == 5
    for beginning in (
        "DATABASE_URL is not a URL of PostgreSQL",
        "GREETING ends with a blank",
        "GREETNIG is in app_settings, or a secret of the app, and not in app_settings_schema: did you mean GREETING?",
        "RELEASE_ID is set by the release itself",
        "SENTRY_DSN is not set, and production needs it (Where errors go)",
    ):
        assert any(sentence.startswith(beginning) for sentence in told), (beginning, told)
    assert CANARY not in " ".join(told)


def test_one_with_a_default_need_not_be_set_and_is_delivered():
    given = {"GREETING": {"description": "What the page says.", "default": "Hello"}}
    assert found({}, given=given) == []
    assert schema.defaults(schema.parse(given)) == {"GREETING": "Hello"}


def test_without_a_schema_only_what_cannot_be_carried_is_refused():
    (told,) = found({"ANYTHING": "x", "DEBUG": True}, given={})
    assert told.startswith("DEBUG is a truth value, which an environment cannot hold")


def test_a_secret_that_everybody_can_read_is_named_with_its_place():
    values = {"DATABASE_URL": "postgres://db/app", "SENTRY_DSN": "https://x"}
    (told,) = found(values, clear={"SENTRY_DSN": "group_vars/production/main.yml:7"})
    assert told.startswith("SENTRY_DSN is secret, and group_vars/production/main.yml:7 has it for everybody to read")


def test_what_is_in_the_clear_is_found_and_what_is_encrypted_is_not(tmp_path):
    place = tmp_path / "group_vars/production"
    place.mkdir(parents=True)
    (place / "main.yml").write_text(
        "app_build_settings:\n  NAMED: worthless\napp_settings:\n  TOKEN: plain\n  EMPTY: ''\n"
        "  VAULTED: !vault |\n    $ANSIBLE_VAULT;1.1;AES256\n    6162\n"
        '  NAMED: "{{ vault_named }}"\n  SOPS: ENC[AES256_GCM,data:x]\n  BLOCK: |\n    two\n    lines\n'
    )
    (place / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    (place / "nothing.yml").write_text("---\n")
    assert check_settings.in_the_clear(tmp_path) == {
        "TOKEN": "group_vars/production/main.yml:4",
        "BLOCK": "group_vars/production/main.yml:11",
    }


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("", "says nothing of what it is"),
        ({"description": " "}, "says nothing of what it is"),
        ({"description": "x", "secert": True}, "did you mean secret?"),
        ({"description": "x", "secret": "yes"}, "secret is to be true or false"),
        ({"description": "x", "required": ["prod"]}, "required is true, false, or a list of production, staging, lab"),
        ({"description": "x", "required": "production"}, "required is true, false, or a list"),
        ({"description": "x", "pattern": "(", "means": "y"}, "no regular expression"),
        ({"description": "x", "pattern": "a+"}, "no means"),
        ({"description": "x", "pattern": "a+", "means": "as", "default": "b"}, "its own default does not match"),
        ({"description": "x", "default": 1}, "default is to be text"),
        ({"description": "x", "secret": True, "default": "s"}, "would be read by everybody"),
        ({"description": "x", "secret": True, "rotation": {"by": "me"}}, "rotation is {by: who"),
        ({"description": "x", "secret": True, "rotation": {"by": "me", "how": "so", "days": 0}}, "days: 1 to 3650"),
        ({"description": "x", "rotation": {"by": "me", "how": "so"}}, "is not secret"),
    ],
)
def test_a_wrong_entry_is_one_sentence(entry, words):
    with pytest.raises(schema.Misread) as misread:
        schema.parse({"NAME": entry})
    assert len(misread.value.problems) == 1
    assert words in misread.value.problems[0]


def test_every_wrong_entry_is_told_and_what_is_no_schema_too():
    with pytest.raises(schema.Misread) as misread:
        schema.parse({"A": {}, "2B": {"description": "x"}, "C": {"description": "x"}})
    assert [problem.split()[0] for problem in misread.value.problems] == ["A", "2B"]
    with pytest.raises(schema.Misread):
        schema.parse(["A"])


def test_the_example_is_read_back_by_a_shell_as_it_was_meant(tmp_path):
    given = {
        "QUOTED": {"description": "Says\nso.", "example": 'it\'s $HOME & "more"'},
        "TOKEN": {"description": "Opens it.", "secret": True},
        "MAYBE": {"description": "Or not.", "required": False},
    }
    text = example.example(schema.parse(given), "bin/env-example")
    path = tmp_path / "env"
    path.write_text(text)
    script = 'set -a; . "$1"; printf "%s|%s|%s" "$QUOTED" "${TOKEN-unset}" "${MAYBE-unset}"'
    said = subprocess.run(["sh", "-c", script, "-", path], capture_output=True, text=True, check=True).stdout
    assert said == 'it\'s $HOME & "more"||unset'
    assert "# Says so. (required)" in text


def test_the_bookshops_example_is_what_its_schema_says():
    words = [sys.executable, "-m", "plugins.settings.example", "group_vars/lab/settings.yml"]
    done = subprocess.run(
        [*words, "--check", "examples/bookshop/.env.example"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_another_example_and_a_file_without_a_schema_are_refused(tmp_path):
    (tmp_path / "old").write_text("GREETING=\n")
    words = [sys.executable, "-m", "plugins.settings.example"]
    for given, said in (
        (["group_vars/lab/settings.yml", "--check", str(tmp_path / "old")], "is not what the schema says"),
        (["group_vars/lab/main.yml"], "has no app_settings_schema"),
        (["nowhere.yml"], "has no app_settings_schema"),
    ):
        done = subprocess.run([*words, *given], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
