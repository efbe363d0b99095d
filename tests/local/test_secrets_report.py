"""secrets_report.yml over a repository whose commits have known dates: ages, what is due, who could have read it."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from plugins.secrets import age, dates, sops
from plugins.secrets import report as report_of
from plugins.secrets.aws import Aws
from plugins.secrets.sops import Sops
from plugins.secrets.vault import Vault
from tests.local.controller import Controller

CANARY = "canary-77d1"
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
FILE = "secrets/production.sops.yml"


def ago(days: float) -> datetime.datetime:
    return NOW - datetime.timedelta(days=days)


def day(days: float) -> str:
    return ago(days).strftime("%Y-%m-%d")


class Repository:
    """A git repository with a file of sops, each change of it at a date that is said."""

    def __init__(self, place: Path) -> None:
        self.place, self.file = place, place / FILE
        self.file.parent.mkdir(parents=True)
        self.key = age.new_key(place.parent / "key.txt", "mine")
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(place.parent)}
        self.git("init", "--quiet")

    @property
    def source(self) -> Sops:
        return Sops(self.file, FILE, self.place.parent / "key.txt", self.environ)

    def git(self, *words: str, days: float = 0) -> None:
        who = {f"GIT_{one}_{what}": f"ada{'@example.com' if what == 'EMAIL' else ''}"
               for one in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}  # fmt: skip
        when = {f"GIT_{one}_DATE": ago(days).isoformat() for one in ("AUTHOR", "COMMITTER")}
        subprocess.run(
            ["git", *words], cwd=self.place, env={**self.environ, **who, **when}, check=True, capture_output=True
        )

    def made(self, text: str, days: float, *to: str) -> None:
        self.file.write_text(age.encrypted(sops.program(), text, to or (self.key,), FILE))
        self.commit(days)

    def sets(self, days: float, **values: Any) -> None:
        self.source.set(values)
        self.commit(days)

    def sops(self, *words: str) -> None:
        environ = {**self.environ, "SOPS_AGE_KEY_FILE": str(self.place.parent / "key.txt")}
        subprocess.run([sops.program(), *words, self.file], env=environ, check=True, capture_output=True)

    def commit(self, days: float) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "x", days=days)

    def since(self, name: str) -> dates.Since:
        return dates.of(self.source).names[name]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


TEXT = f"app:\n  OLD: {CANARY}-1\n  NEW: {CANARY}-2\nredis_app_password: {CANARY}-3\n"


def test_each_has_the_date_of_its_own_last_change(repository: Repository) -> None:
    repository.made(TEXT, 200)
    repository.sets(40, app={"NEW": f"{CANARY}-4"})
    repository.sets(10, app={"LATER": f"{CANARY}-5"})
    found = dates.of(repository.source).names
    assert {name: (one.when, one.exact) for name, one in found.items()} == {
        "app.OLD": (ago(200), True), "app.NEW": (ago(40), True), "app.LATER": (ago(10), True),
        "redis_app_password": (ago(200), True),
    }  # fmt: skip


def test_to_encrypt_all_of_it_again_makes_nothing_younger(repository: Repository) -> None:
    repository.made(TEXT, 200)
    repository.sops("rotate", "--in-place")
    repository.commit(30)
    assert repository.since("app.OLD").when == ago(200)
    repository.sets(20, app={"OLD": "a", "NEW": "b"}, redis_app_password="c")
    assert {one.when for one in dates.of(repository.source).names.values()} == {ago(20)}, "all of them really are new"


def test_a_rename_makes_nothing_younger(repository: Repository) -> None:
    repository.made(TEXT, 200)
    repository.git("mv", FILE, "secrets/other.sops.yml")
    repository.commit(5)
    repository.file = repository.place / "secrets/other.sops.yml"
    assert repository.since("app.OLD").when == ago(200)


def test_a_merge_counts_where_it_came_in(repository: Repository) -> None:
    """A commit on a branch lies between those of the other, and neither undoes the other's."""
    repository.made(TEXT, 200)
    repository.git("checkout", "--quiet", "-b", "other")
    repository.sets(120, app={"NEW": "x"})
    repository.git("checkout", "--quiet", "-")
    repository.sets(100, app={"OLD": "y"})
    repository.git("merge", "--quiet", "--no-ff", "--no-commit", "--strategy=ours", "other")
    repository.sets(80, app={"NEW": "x"})
    found = dates.of(repository.source).names
    assert (found["app.NEW"].when, found["app.OLD"].when) == (ago(80), ago(100))
    assert found["app.NEW"].whence == "git"


def test_what_is_not_committed_yet_is_of_now(repository: Repository) -> None:
    repository.made(TEXT, 200)
    repository.source.set({"app": {"NEW": "x"}})
    new, old = repository.since("app.NEW"), repository.since("app.OLD")
    assert new.when is not None
    assert abs((new.when - datetime.datetime.now(datetime.UTC)).total_seconds()) < 120
    assert (new.whence, old.when) == ("not committed", ago(200))


def test_without_all_of_the_history_an_age_is_a_least_one(repository: Repository, tmp_path: Path) -> None:
    repository.made(TEXT, 200)
    repository.sets(40, app={"NEW": "x"})
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{repository.place}", shallow], check=True)
    found = dates.of(Sops(shallow / FILE, FILE)).names
    assert (found["app.OLD"].when, found["app.OLD"].exact) == (ago(40), False)


def test_readers_are_all_who_had_a_key_since_it_was_made(repository: Repository, tmp_path: Path) -> None:
    other = age.new_key(tmp_path / "other.txt", "a colleague's")
    repository.made(TEXT, 200, repository.key, other)
    repository.sops("rotate", "--in-place", "--rm-age", other)
    repository.commit(50)
    repository.sets(20, app={"NEW": "x"})
    assert set(repository.since("app.OLD").readers) == {repository.key, other}
    assert repository.since("app.NEW").readers == (repository.key,)


def test_a_vault_as_a_whole_is_as_old_as_its_last_edit_at_least(repository: Repository) -> None:
    file = repository.place / "secrets/production.vault.yml"
    for days, text in ((90, "6162"), (30, "6163")):
        file.write_text(f"$ANSIBLE_VAULT;1.1;AES256\n{text}\n")
        repository.commit(days)
    rest = dates.of(Vault(file, tuple)).rest
    assert (rest.when, rest.exact) == (ago(30), False)


def test_what_is_not_seen_by_name_is_reported_as_one(repository: Repository) -> None:
    seen = dates.Dates({}, dates.Since(ago(30), False, "git, of the whole file"))
    left = {"name": "eve", "role": "admin", "until": "", "left": day(20)}
    (row,) = report_of.rows([], seen, {}, {}, [left], NOW)
    assert (row["name"], row["due"], report_of.age(row)) == ("all else that is there", True, "30 days or more")
    assert not report_of.rows([], seen, {}, {}, [{**left, "left": day(40)}], NOW)[0]["due"]


def test_a_vault_value_by_value_has_a_date_for_each(repository: Repository) -> None:
    file = repository.place / "secrets/production.vault.yml"
    value = "  {}: !vault |\n    $ANSIBLE_VAULT;1.1;AES256\n    {}\n"
    for days, new in ((90, "6162"), (30, "6163")):
        file.write_text("app:\n" + value.format("A", "6161") + value.format("B", new))
        repository.commit(days)
    found = dates.of(Vault(file, tuple)).names
    assert (found["app.A"].when, found["app.B"].when) == (ago(90), ago(30))


def test_aws_tells_one_date_for_all_of_them(monkeypatch: Any) -> None:
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        boto3.client("secretsmanager", region_name="eu-central-1").create_secret(Name="shop", SecretString="{}")
        rest = dates.of(Aws("shop", "eu-central-1")).rest
    assert rest.when is not None
    assert (abs((rest.when - datetime.datetime.now(datetime.UTC)).total_seconds()) < 120, rest.exact) == (True, False)


SCHEMA = {
    "OLD": {"description": "x", "secret": True, "rotation": {"by": "operators", "how": "make one", "days": 90}},
    "NEW": {"description": "x", "secret": True, "rotation": {"by": "the bank", "how": "ask them"}},
    "REDIS_URL": {"description": "x", "secret": True, "rotation": {"by": "operators", "how": "both", "days": 365}},
    "GREETING": {"description": "x"},
}


@pytest.fixture
def report(repository: Repository, tmp_path: Path) -> Callable[..., Any]:
    place = tmp_path / "controller"
    place.mkdir()
    controller = Controller(place)
    repository.made(TEXT, 200)
    repository.sets(40, app={"NEW": f"{CANARY}-4"})

    def run(**given: Any) -> Any:
        known = {
            "secrets_source": {"kind": "sops", "file": str(repository.file)}, "app_settings_schema": SCHEMA,
            "app_settings": {"REDIS_URL": "rediss://app:{{ secrets.redis_app_password }}@data1:6379/0"},
            "deployers_people": [], "deployers_automation": [], "secrets_report_dir": str(tmp_path / "reports"),
        }  # fmt: skip
        return controller.play("secrets_report", **{**known, **given})

    return run


def rows(tmp_path: Path) -> dict[str, Any]:
    (path,) = (tmp_path / "reports").glob("secrets-production-*.json")
    return {row["name"]: row for row in json.loads(path.read_text())["secrets"]}


def person(name: str, role: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "role": role, "since": day(300), "until": "", **more}


def test_the_report_says_what_is_due_without_a_key_and_without_a_value(
    report: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "key.txt").rename(tmp_path / "gone.txt")
    run = report(deployers_people=[person("alice", "deployer"), person("bob", "admin", hosts=["staging"])])
    assert run.returncode == 0, run.stdout + run.stderr
    assert "OLD: 200 days old, DUE: 90 days are over; operators, make one" in run.stdout
    assert "NEW: 40 days old, due in 50 days" in run.stdout
    assert "REDIS_URL: 200 days old, due in 165 days" in run.stdout
    found = rows(tmp_path)
    assert found["REDIS_URL"]["made_of"] == ["redis_app_password"]
    assert {tuple(row["people"]) for row in found.values()} == {("alice (deployer)",)}
    (page,) = (tmp_path / "reports").glob("*.md")
    assert "| OLD | 200 days |" in page.read_text()
    assert "1 of 3 secrets is due; see" in run.stdout.strip().splitlines()[-1], "the last line says how many"
    assert CANARY not in run.stdout + run.stderr + page.read_text() + json.dumps(found)
    assert page.stat().st_mode & 0o007 == 0, "it is not for everybody"


def test_what_a_leaver_could_read_is_due_until_there_is_a_new_one(report: Callable[..., Any], tmp_path: Path) -> None:
    left = {"state": "left", "left_ticket": "OPS-2"}
    run = report(
        deployers_people=[
            person("carol", "deployer", left=day(100), **left),
            person("dave", "admin", left=day(20), **left),
        ]
    )
    found = rows(tmp_path)
    assert "OLD: 200 days old, DUE: carol, dave could read it and left" in run.stdout
    assert found["NEW"]["why"] == "dave could read it and left", "carol left before it was made"
    assert f"carol (deployer, left {day(100)})" not in found["NEW"]["people"]
    assert "3 of 3 secrets are due" in run.stdout


def test_it_fails_for_one_that_is_due_where_that_is_asked_for(report: Callable[..., Any]) -> None:
    run = report(secrets_report_fail=True)
    assert run.returncode != 0
    assert "1 of 3 secrets is due" in run.stdout
    schema = {**SCHEMA, "OLD": {**SCHEMA["OLD"], "rotation": {"by": "a", "how": "b", "days": 201}}}
    assert report(secrets_report_fail=True, app_settings_schema=schema).returncode == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"secrets_source": {}}, "secrets_source is not set"),
        ({"secrets_source": {"kind": "sosp"}}, "sosp is no kind of secrets_source"),
        ({"secrets_source": {"kind": "sops", "file": "/nowhere.sops.yml"}}, "is not there: make it by `sops edit"),
        ({"app_settings_schema": {"X": {}}}, "X in app_settings_schema says nothing of what it is"),
        ({"secrets_report_fail": "perhaps"}, "fail"),
    ],
)
def test_bad_input_is_said_before_a_report_is_written(
    report: Callable[..., Any], tmp_path: Path, given: dict[str, Any], says: str
) -> None:
    run = report(**given)
    assert run.returncode != 0
    assert says in run.stdout + run.stderr
    assert not (tmp_path / "reports").exists()
