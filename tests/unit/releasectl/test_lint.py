"""What the lint says of each of Django's operations, asked of the Django that the bookshop is released with."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
INSIDE = ROOT / "roles/release/files/inside"

# Book has columns of all kinds, Tag is its neighbour, Far is not kept by Django, Named has a table name of its own.
DRIVER = r"""
import json, sys
sys.path.insert(0, sys.argv[1])
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.postgres"], DATABASES={})
django.setup()
from django.contrib.postgres import operations as pg
from django.db import migrations, models
from django.db.migrations.state import ProjectState
import slipway_lint
def nothing(apps, editor): pass
M, S = migrations, migrations.SeparateDatabaseAndState
big = models.BigAutoField(primary_key=True)
base = [
    M.CreateModel("Tag", [("id", big)]),
    M.CreateModel("Book", [
        ("id", big), ("title", models.CharField(max_length=30)), ("note", models.CharField(max_length=30, null=True)),
        ("count", models.IntegerField(default=0)), ("kind", models.CharField(max_length=5, db_column="sort")),
        ("price", models.DecimalField(max_digits=6, decimal_places=2)), ("tags", models.ManyToManyField("a.Tag")),
        ("state", models.CharField(max_length=5, db_default="new")),
        ("tag", models.ForeignKey("a.Tag", models.CASCADE, related_name="+")),
    ]),
    M.CreateModel("Far", [("id", big), ("x", models.IntegerField())], {"managed": False}),
    M.CreateModel("Named", [("id", big)], {"db_table": "named"}),
]
found = {}
for name, source in json.load(sys.stdin).items():
    state = ProjectState()
    for operation in base:
        operation.state_forwards("a", state)
    space = {**globals()}
    migration = type("Migration", (M.Migration,), {})("0002_x", "a")
    given = eval(source, space)
    if isinstance(given, dict):
        for key, value in given.items():
            setattr(migration, key, value)
    else:
        migration.operations = given if isinstance(given, list) else [given]
    found[name] = slipway_lint.Lint(state).migration(migration)
print(json.dumps(found))
"""

CASES = {
    # Tables
    "M.CreateModel('New', [('id', big)])": "compatible",
    "M.DeleteModel('Book')": "destructive",
    "M.DeleteModel('Far')": "compatible",
    "M.RenameModel('Book', 'Volume')": "incompatible",
    "M.RenameModel('Named', 'Called')": "compatible",
    "M.AlterModelTable('Book', 'volumes')": "incompatible",
    "M.AlterModelTable('Named', 'named')": "compatible",
    "M.AlterOrderWithRespectTo('Book', 'tag')": "incompatible",
    "M.AlterModelOptions('Book', {'ordering': ['title']})": "compatible",
    # Columns that come and go
    "M.AddField('Book', 'x', models.IntegerField(null=True))": "compatible",
    "M.AddField('Book', 'x', models.IntegerField(db_default=0))": "compatible",
    "M.AddField('Book', 'x', models.IntegerField(default=0))": "incompatible",
    "M.AddField('Book', 'x', models.IntegerField(default=0), preserve_default=False)": "incompatible",
    "M.AddField('Book', 'x', models.IntegerField(null=True, db_index=True))": "locks",
    "M.AddField('Book', 'x', models.ForeignKey('a.Tag', models.CASCADE, null=True))": "locks",
    "M.AddField('Book', 'x', models.ManyToManyField('a.Tag', related_name='+'))": "compatible",
    "M.AddField('Book', 'x', models.GeneratedField(expression=models.F('count') + 1, db_persist=True, "
    "output_field=models.IntegerField()))": "locks",
    "M.AddField('Far', 'y', models.IntegerField(default=0))": "compatible",
    "M.RemoveField('Book', 'note')": "destructive",
    "M.RemoveField('Book', 'tags')": "destructive",
    "M.RemoveField('Far', 'x')": "compatible",
    "M.RenameField('Book', 'title', 'name')": "incompatible",
    "M.RenameField('Book', 'kind', 'genre')": "compatible",
    # Columns that change
    "M.AlterField('Book', 'title', models.CharField(max_length=30, help_text='x', blank=True))": "compatible",
    "M.AlterField('Book', 'title', models.CharField(max_length=40))": "compatible",
    "M.AlterField('Book', 'title', models.CharField(max_length=20))": "incompatible",
    "M.AlterField('Book', 'title', models.CharField(max_length='40'))": "compatible",
    "M.AlterField('Book', 'title', models.CharField(max_length='20'))": "incompatible",
    "M.AlterField('Book', 'title', type('Odd', (models.CharField,), {'get_internal_type': 1})())": "unknown",
    "M.AlterField('Book', 'title', models.SlugField(max_length=30, db_index=False))": "compatible",
    "M.AlterField('Book', 'title', models.TextField())": "compatible",
    "M.AlterField('Book', 'title', models.IntegerField())": "incompatible",
    "M.AlterField('Book', 'title', models.CharField(max_length=30, null=True))": "compatible",
    "M.AlterField('Book', 'note', models.CharField(max_length=30))": "incompatible",
    "M.AlterField('Book', 'title', models.CharField(max_length=30, unique=True))": "locks",
    "M.AlterField('Book', 'title', models.CharField(max_length=30, db_index=True))": "locks",
    "M.AlterField('Book', 'title', models.CharField(max_length=30, db_column='t'))": "incompatible",
    "M.AlterField('Book', 'count', models.BigIntegerField(default=0))": "locks",
    "M.AlterField('Book', 'count', models.PositiveIntegerField(default=0))": "locks",
    "M.AlterField('Book', 'price', models.DecimalField(max_digits=9, decimal_places=2))": "compatible",
    "M.AlterField('Book', 'price', models.DecimalField(max_digits=6, decimal_places=3))": "incompatible",
    "M.AlterField('Book', 'state', models.CharField(max_length=5))": "incompatible",
    "M.AlterField('Book', 'tag', models.ForeignKey('a.Named', models.CASCADE, related_name='+'))": "incompatible",
    # Indexes and constraints
    "M.AddIndex('Book', models.Index(fields=['title'], name='i'))": "locks",
    "pg.AddIndexConcurrently('Book', models.Index(fields=['title'], name='i'))": "compatible",
    "M.AddConstraint('Book', models.UniqueConstraint(fields=['title'], name='u'))": "locks",
    "pg.AddConstraintNotValid('Book', models.CheckConstraint(condition=models.Q(count__gt=0), name='c'))": "compatible",
    "M.AlterUniqueTogether('Book', {('title', 'count')})": "locks",
    "M.AlterUniqueTogether('Book', set())": "compatible",
    # By hand
    "M.RunPython(nothing)": "unknown",
    "M.RunPython(M.RunPython.noop)": "compatible",
    "M.RunSQL('')": "compatible",
    "M.RunSQL('SELECT 1')": "unknown",
    "M.RunSQL('ALTER TABLE a_book DROP COLUMN note')": "destructive",
    "M.RunSQL(['-- DROP TABLE a_book', ('SELECT %s', ['DROP TABLE x'])])": "unknown",
    "M.RunSQL('ALTER TABLE a_book RENAME COLUMN note TO remark')": "incompatible",
    "M.RunSQL('ALTER TABLE a_book ALTER COLUMN note SET NOT NULL')": "incompatible",
    "M.RunSQL('CREATE INDEX i ON a_book (title)')": "locks",
    "M.RunSQL('CREATE INDEX CONCURRENTLY i ON a_book (title)')": "unknown",
    "type('Own', (M.operations.base.Operation,), {'state_forwards': lambda *_: None})()": "unknown",
    "S(state_operations=[M.RemoveField('Book', 'note')])": "compatible",
    "S(database_operations=[M.RemoveField('Book', 'note')])": "destructive",
    # Together
    "[M.CreateModel('New', [('id', big)]), M.AddField('New', 'x', models.IntegerField(default=0))]": "compatible",
    "[M.AddField('Book', 'x', models.IntegerField(null=True)), M.RemoveField('Book', 'x')]": "destructive",
    "[M.AlterField('Book', 'note', models.CharField(max_length=90, null=True)), "
    "M.AlterField('Book', 'note', models.CharField(max_length=60, null=True))]": "incompatible",
    # As the app says
    "{'operations': [M.RemoveField('Book', 'note')], 'slipway': 'compatible'}": "compatible",
    "{'operations': [M.RunPython(nothing)], 'slipway': 'incompatible'}": "incompatible",
    "{'operations': [M.RunPython(nothing)], 'slipway': 'nonsense'}": "unknown",
}


@pytest.fixture(scope="module")
def linted(django):
    done = subprocess.run(
        [django, "-c", DRIVER, str(INSIDE)],
        input=json.dumps({source: source for source in CASES}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("source", CASES)
def test_the_level_of_an_operation(linted, source):
    assert linted[source]["level"] == CASES[source], linted[source]["findings"]


def test_what_is_marked_compatible_may_still_lose_data(linted):
    record = linted["{'operations': [M.RemoveField('Book', 'note')], 'slipway': 'compatible'}"]
    assert (record["mark"], record["loses"]) == ("compatible", True)


def test_it_names_the_table_that_is_locked(linted):
    (finding,) = linted["M.AddIndex('Book', models.Index(fields=['title'], name='i'))"]["findings"]
    assert finding["table"] == "a_book"


def test_the_migrations_of_django_itself_are_read_without_a_database(django, tmp_path):
    """And an app without Django has none, which is no failure."""
    app = tmp_path / "app"
    shutil.copytree(ROOT / "examples/bookshop", app, ignore=shutil.ignore_patterns("__pycache__"))
    words = json.dumps({"mode": "describe", "manage": ["collectstatic", "--noinput", "--verbosity", "0"]})
    environment = {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DJANGO_SECRET_KEY": "x",
        "PYTHONDONTWRITEBYTECODE": "1",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "STATIC_ROOT": str(tmp_path / "static"),
    }

    def describe(python):
        done = subprocess.run(
            [python, str(INSIDE / "slipway_migrations.py"), words],
            cwd=app, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        line = [line for line in done.stdout.splitlines() if line.startswith("@slipway ")][-1]
        return json.loads(line.removeprefix("@slipway "))["migrations"]

    levels = {record["name"]: record["level"] for record in describe(django)}
    assert levels["bookshop.0001_initial"] == "compatible"
    assert levels["bookshop.0002_first_books"] == "unknown"
    assert levels["contenttypes.0002_remove_content_type_name"] == "destructive"
    (app / "manage.py").write_text("print('collected')\n")
    assert describe("/usr/bin/python3") == []
