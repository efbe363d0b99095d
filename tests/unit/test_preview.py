"""What a deploy would do, told without doing any of it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from plugins.preview import commits, contents, page, standin
from releasectl.preview import versions

HEAD = "from django.db import migrations, models\n\n\nclass Migration(migrations.Migration):\n"
INITIAL = (
    HEAD + "    operations = [migrations.CreateModel('Book', fields=[('id', models.BigAutoField(primary_key=True)),"
    " ('code', models.CharField(max_length=9)), ('old', models.TextField(null=True, db_column='x')),"
    " ('author', models.ForeignKey('shop.Author', on_delete=models.CASCADE)),"
    " ('tags', models.ManyToManyField('shop.Tag'))])]\n"
)


def after(*operations: str, body: str = "") -> str:
    return HEAD + body + f"    dependencies = [('shop', '0001_initial')]\n    operations = [{', '.join(operations)}]\n"


def level(*operations: str, body: str = "") -> tuple[str, str]:
    raw = standin.judge({"shop.0001_initial": INITIAL, "shop.0002_x": after(*operations, body=body)})[-1]
    assert raw["name"] == "shop.0002_x"
    return raw["level"], "; ".join(found["what"] for found in raw["findings"])


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        ("migrations.AddField('book', 'a', models.TextField(null=True))", "compatible"),
        ("migrations.AddField('book', 'a', models.TextField(default=''))", "incompatible"),
        ("migrations.AddField('book', 'a', models.TextField(db_default=''))", "compatible"),
        ("migrations.AddField(model_name='book', name='a', field=models.SlugField(null=True))", "locks"),
        ("migrations.RemoveField('book', 'code')", "destructive"),
        ("migrations.DeleteModel('Book')", "destructive"),
        ("migrations.RenameModel('Book', 'Volume')", "incompatible"),
        ("migrations.RenameField('book', 'code', 'number')", "incompatible"),
        ("migrations.RenameField('book', 'old', 'new')", "compatible"),  # it has a db_column
        ("migrations.AlterField('book', 'code', models.CharField(max_length=20))", "compatible"),
        ("migrations.AlterField('book', 'code', models.CharField(max_length=5))", "incompatible"),
        ("migrations.AlterField('book', 'code', models.CharField(max_length=9, help_text='x'))", "compatible"),
        ("migrations.AddIndex('book', models.Index(fields=['code'], name='i'))", "locks"),
        ("AddIndexConcurrently('book', models.Index(fields=['code'], name='i'))", "compatible"),
        ("migrations.AlterUniqueTogether('book', {('code', 'author')})", "locks"),
        ("migrations.RunSQL('DROP TABLE shop_book')", "destructive"),
        ("migrations.RunSQL(open('x.sql').read())", "unknown"),
        ("migrations.RunPython(forwards)", "unknown"),
        ("migrations.RunPython(migrations.RunPython.noop)", "compatible"),
        ("Ours()", "unknown"),
        (
            "migrations.SeparateDatabaseAndState(state_operations=[migrations.RemoveField('book', 'code')])",
            "compatible",
        ),
        ("migrations.SeparateDatabaseAndState([migrations.RemoveField('book', 'code')])", "destructive"),
    ],
)
def test_an_operation_is_judged_from_its_source(operation: str, wanted: str) -> None:
    assert level(operation)[0] == wanted, level(operation)


def test_what_is_marked_counts_and_what_cannot_be_read_is_unknown() -> None:
    assert level("migrations.DeleteModel('Book')", body="    slipway = 'compatible'\n")[0] == "compatible"
    for source in ("def (", "x = 1\n", HEAD + "    operations = made() + more\n"):
        assert standin.judge({"shop.0001_x": source})[0]["level"] == "unknown", source


def test_it_says_the_same_of_the_bookshop_as_django_would() -> None:
    """The migrations that the deploys of the tests go through."""
    directory = Path(__file__).parents[2] / "examples/bookshop/bookshop/migrations"
    sources = {f"bookshop.{path.stem}": path.read_text() for path in directory.glob("0*.py")}
    assert {raw["name"]: raw["level"] for raw in standin.judge(sources)} == {
        "bookshop.0001_initial": "compatible",
        "bookshop.0002_first_books": "unknown",
    }


def test_a_squashed_migration_stands_for_those_that_it_replaces() -> None:
    squashed = HEAD + "    replaces = [('shop', '0001_initial'), ('shop', '0002_x')]\n    operations = []\n"
    sources = {"shop.0001_initial": INITIAL, "shop.0002_x": after(), "shop.0001_squashed": squashed}
    found, strange = page.records(sources)
    assert ([item.name for item in found], strange) == (["shop.0001_squashed"], [])
    assert standin.pending(found, {"shop.0001_initial", "shop.0002_x"}) == []
    assert standin.pending(found, set()) == found


def test_versions_of_a_lock_file() -> None:
    text = "# x\nDjango==5.2.8 \\\n    --hash=sha256:aa\nzope.interface[test] == 7.0 ; python_version > '3'\npkg @ https://u:secret@x/\n"
    assert versions(text) == {"django": "5.2.8", "zope-interface": "7.0"}


def packed(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


FILES = {
    "REVISION": "b" * 40 + "\n",
    "requirements.lock": "django==5.2.8 --hash=sha256:0\nnew==1 --hash=sha256:1\n",
    "shop/migrations/__init__.py": "",
    "shop/migrations/0001_initial.py": INITIAL,
    "shop/migrations/0002_drop.py": after("migrations.RemoveField('book', 'code')"),
    "parts/old/apps.py": "class OldConfig(AppConfig):\n    name = 'parts.old'\n    label = 'vintage'\n",
    "parts/old/migrations/0001_initial.py": after(),
    ".slipway/hooks/after_activate": "#!/bin/sh\n",
}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return packed(tmp_path / "shop.tar.gz", FILES)


def test_an_artifact_is_read_without_unpacking_it(artifact: Path) -> None:
    found = contents.read(artifact, "requirements.lock")
    assert set(found.migrations) == {"shop.0001_initial", "shop.0002_drop", "vintage.0001_initial"}
    assert (found.revision, found.requirements) == ("b" * 40, FILES["requirements.lock"])
    assert (found.entries, found.bytes) == (len(FILES), sum(len(text) for text in FILES.values()))
    assert found.hooks == ["after_activate"]


ANSWER: dict[str, Any] = {
    "live": "shop-a", "revision": "a" * 40, "prepared": False, "applied": ["shop.0001_initial", "vintage.0001_initial"],
    "requirements": {"django": "5.2.7", "gone": "2"}, "settings": {"added": [], "removed": [], "changed": ["MAIL"]},
    "processes": ["gunicorn"], "disks": [{"paths": ["/opt"], "needed": 2**20, "free": 2**30}], "memory": None,
    "closed": None, "drift": [], "refused": [], "restore_points": True,
}  # fmt: skip


def make(artifact: Path, *hosts: dict[str, Any], **more: Any) -> page.Preview:
    read = contents.read(artifact, "requirements.lock")
    plan = page.Plan("shop-b", read, **more)
    answers = {f"app{number}": {**ANSWER, **host} for number, host in enumerate(hosts or ({},), 1)}
    return page.make(plan, answers, commits.Commits(("b1 Drop (Ann)",)))


def test_a_page_says_all_of_it(artifact: Path) -> None:
    made = make(artifact)
    text = "\n".join(made.lines)
    for words in (
        "1 commit since shop-a", "b1 Drop (Ann)", "1 migration of the artifact would be applied",
        "destructive   drops book.code",
        "django 5.2.7 -> 5.2.8", "new 1 comes", "gone 2 goes", "changed: MAIL", "the site would be closed",
        "starts gunicorn anew, beside those of shop-a", "disk: about 1 of 1024 MiB", "after_activate",
    ):  # fmt: skip
        assert words in text, text
    assert made.refused == []
    assert made.closing.startswith("shop-b would go live on app1 in place of shop-a: 1 migration, the site is closed")


def test_what_it_needs_is_told_and_refused_where_it_is_not_in_force(tmp_path: Path) -> None:
    needing = packed(tmp_path / "shop.tar.gz", {**FILES, ".slipway/settings": "MAIL\nPAYMENT_KEY\n"})
    assert contents.read(needing, "requirements.lock").settings == ["MAIL", "PAYMENT_KEY"]
    have = {"settings": {**ANSWER["settings"], "names": ["MAIL", "PAYMENT_KEY"], "waiting": "env.9"}}
    without = {"settings": {**ANSWER["settings"], "names": ["MAIL"]}}
    made = make(needing, have)
    assert made.refused == []
    text = "\n".join(made.lines)
    assert "it needs: MAIL, PAYMENT_KEY" in text
    assert "app1: env.9 was delivered and is not in force" in text
    refused = make(needing, have, without, {**without, "processes": []}).closing
    assert "shop-b needs the setting PAYMENT_KEY (.slipway/settings), which is not in force on app2:" in refused


def test_of_an_image_it_says_what_it_cannot_know(artifact: Path) -> None:
    plan = page.Plan("shop-b", contents.Contents(revision="b" * 40), image="registry.example.com/shop@sha256:0")
    made = page.make(plan, {"app1": ANSWER}, commits.Commits(("b1 Drop (Ann)",)))
    text = "\n".join(made.lines)
    for words in ("registry.example.com/shop@", "b1 Drop (Ann)", "not known before it is pulled", "changed: MAIL"):
        assert words in text, text
    assert made.closing.startswith("shop-b would go live on app1 in place of shop-a: its migrations are not known")
    assert "requirements" not in text


def test_what_would_be_refused_is_said_with_the_reasons(artifact: Path) -> None:
    made = make(artifact, {"refused": ["No room."]}, {}, maintenance="never", most_entries=3)
    assert made.closing.startswith("shop-b would be refused. ")
    for words in ("shop.0002_drop (drops book.code)", "app1: No room.", "more than release_unpacked_max_entries (3)"):
        assert words in made.closing
    bare = packed(artifact.with_name("bare.tar.gz"), {".slipway/hooks/after_lunch": "", "manage.py": ""})
    refused = make(bare).closing
    assert "no requirements.lock" in refused
    assert "'after_lunch' is none" in refused


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"requirements.txt": "a==1", "requirements.lock": "a==1 --hash=sha256:0"}, "requirements.lock"),
        ({"shop/manage.py": "", "shop/requirements.txt": "a==1 --hash=sha256:0"}, "shop/requirements.txt"),
        ({"pyproject.toml": "[project]", "uv.lock": "version = 1"}, "uv.lock"),
        ({"docs/requirements.txt": "sphinx"}, ""),
        ({"../requirements.lock": "a==1 --hash=sha256:0"}, ""),
        ({"a/manage.py": "", "b/manage.py": "", "requirements.lock": "a==1 --hash=sha256:0"}, ""),
    ],
    ids=["hashes first", "beside manage.py", "uv", "of something else", "leads out", "two projects"],
)
def test_the_requirements_are_those_that_the_host_would_take(tmp_path: Path, files: dict[str, str], found: str) -> None:
    top = {} if any(name.endswith("/manage.py") for name in files) else {"manage.py": ""}
    read = contents.read(packed(tmp_path / "a.tar.gz", {**top, **files}), "")
    assert read.requirements_file == found
    assert read.requirements == files.get(found)


def test_requirements_without_hashes_are_refused_as_the_host_would(tmp_path: Path) -> None:
    listed = packed(tmp_path / "a.tar.gz", {"manage.py": "", "requirements.lock": "django>=5\n"})
    assert "The requirements in requirements.lock have no hashes" in make(listed).closing
    allowed = make(listed, unhashed=True)
    assert allowed.refused == []
    assert "has no hashes: what the index has at that moment" in "\n".join(allowed.lines)


@pytest.mark.parametrize(
    ("named", "files"),
    [
        ("requirements.lock", {"manage.py": "", "requirements.lock": "# nothing\n"}),
        ("", {"shop/manage.py": "", "shop/uv.lock": "version = 1\n"}),
    ],
    ids=["an empty lock", "uv, below"],
)
def test_what_the_host_takes_is_not_refused(tmp_path: Path, named: str, files: dict[str, str]) -> None:
    found = contents.read(packed(tmp_path / "a.tar.gz", files), named)
    made = page.make(page.Plan("shop-b", found), {"app1": {**ANSWER, "applied": []}}, commits.Commits(()))
    assert made.refused == []


def test_versions_of_a_lock_of_uv() -> None:
    assert versions('[[package]]\nname = "Django"\nversion = "5.2.8"\nsource = {}\n') == {"django": "5.2.8"}


def test_a_restore_point_is_announced_or_missed(artifact: Path) -> None:
    assert "one would be made before shop.0002_drop (drops book.code)" in "\n".join(make(artifact).lines)
    without = make(artifact, {"restore_points": False})
    assert "no place for them is set: set release_restore_point_target" in without.closing
    never = make(artifact, {"restore_points": False}, restore_point="never")
    assert never.refused == []
    assert "none would be made before" in "\n".join(never.lines)


def test_when_nothing_is_live_nothing_can_break(artifact: Path) -> None:
    made = make(artifact, {"live": None, "applied": [], "requirements": None, "revision": None}, maintenance="always")
    assert made.closing.startswith("shop-b would go live on app1 as the first release")
    assert "stays open" in made.closing


def test_an_edge_knows_nothing_of_the_database(artifact: Path) -> None:
    edge = {"processes": [], "applied": ["shop.0001_initial"]}
    assert "1 migration of the artifact" in "\n".join(make(artifact, {}, edge).lines)
    unknown = make(artifact, {"applied": None})
    assert "not recorded" in "\n".join(unknown.lines)


def test_commits_come_from_a_checkout_that_has_both(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        name = ("-c", "user.name=Ann", "-c", "user.email=a@example.org")
        done = subprocess.run(["git", "-C", tmp_path, *name, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    marks = []
    for text in ("One", "Two", "Three"):
        git("commit", "-q", "--allow-empty", "-m", text)
        marks.append(git("rev-parse", "HEAD"))
    found = commits.between(marks[0], marks[2], [tmp_path / "none", tmp_path])
    assert [line.split(" ", 1)[1] for line in found.new] == ["Three (Ann)", "Two (Ann)"]
    assert len(commits.between(marks[2], marks[0], [tmp_path]).gone) == 2
    assert "release_checkout" in commits.between(marks[0], "c" * 40, [tmp_path]).why
    assert "packed from" in commits.between("--all", marks[0], [tmp_path]).why
