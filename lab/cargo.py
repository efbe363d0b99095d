#!/usr/bin/env python3
"""Releases to try things with: variants of examples/bookshop, packed as `make artifact` packs it.

    lab/cargo.py good-1 good-2 bad crash            # prints {"good-1": {"artifact": …, "id": …, "sha256": …}, …}

Each variant is one commit in a scratch repository under .lab/<name>/cargo, so that its id is a real one. The same
source gives the same commit and the same bytes: asking twice changes nothing.

  good-<n>           version 1.<n>.0 on the page, in the style sheet and in the icon
  relocked-<n>       like good-<n>, with a lock file of its own, so that its virtual environment is built as well
  migration-<n>      like good-<n>, and a migration adds a column
  bad-migration      its migration fails
  hooked-<n>         like good-<n>, and lab/hook is its hook at every point
  needing-<n>        like good-<n>, and says that it needs the setting PAYMENT_KEY
  half-migration     the first of its two migrations adds a column, the second fails
  rename-<n>         like good-<n>, and renames the column that the first of half-migration adds
  drop-<n>           like good-<n>, and its migrations add a column and drop it again
  stuck-<n>          like good-<n>, and the second of its migrations never ends
  ticking-<n>        like good-<n>, and /ticks sends events without end
  counting-<n>       like good-<n>, and its tasks note in Redis what they do; from 2 on it has one that 1 does not know
  hasty-<n>          like counting-<n>, and Redis hands out again what was not acknowledged for five seconds
  bad                /readyz answers 500: the release is refused by its health gate
  crash              the process ends with an import error when it starts
  hang               /readyz never answers
  sour               /readyz is well, the front page answers 500
  featherweight-<n>  no Django at all: builds in a second and starts in less, for tests that switch hundreds of times
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BOOKSHOP = ROOT / "examples" / "bookshop"
FEATHERWEIGHT = Path(__file__).resolve().parent / "featherweight"
POINTS = (
    "before_build", "after_build", "before_migrate", "after_migrate", "before_activate", "after_activate", "on_failure",
)  # fmt: skip
JUNK = shutil.ignore_patterns("__pycache__", "*.pyc", "db.sqlite3", "media", "staticfiles", "tests")
# The commits say nothing of who asks or when, or they would differ from machine to machine.
COMMITTER = {
    "GIT_AUTHOR_NAME": "Bookshop",
    "GIT_AUTHOR_EMAIL": "bookshop@example.org",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "Bookshop",
    "GIT_COMMITTER_EMAIL": "bookshop@example.org",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}

COLUMN = '''"""A number that other shops know the book by."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("bookshop", "0002_first_books")]

    operations = [
        migrations.AddField("book", "isbn", models.CharField(max_length=13, blank=True, default="", db_default="")),
    ]
'''
FAILING = '''"""Goes wrong half-way."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("bookshop", "0002_first_books")]

    operations = [migrations.RunSQL("SELECT 1 / 0")]
'''
PEN = '''"""Some wrote under another name."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("bookshop", "0002_first_books")]

    operations = [migrations.AddField("author", "pen", models.CharField(max_length=200, null=True, blank=True))]
'''
PEN_NAME = '''"""Pen was too short a name."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("bookshop", "0003_pen")]

    operations = [migrations.RenameField("author", "pen", "pen_name")]
'''


SLEEPING = '''"""Waits for something that never comes."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("bookshop", "0003_pen")]

    operations = [migrations.RunSQL("SELECT pg_sleep(3600)", "SELECT 1")]
'''
TICKS = """

@require_safe
def ticks(_request: HttpRequest):
    from django.http import StreamingHttpResponse

    def events():
        while True:
            yield f"data: {settings.RELEASE_ID}\\n\\n"
            time.sleep(0.5)

    return StreamingHttpResponse(
        events(), content_type="text/event-stream", headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    )
"""
# Whoever does a task notes it, and beat its ticks: "<time> <generation> begin|end|tick <number>".
NOTING = """

@functools.cache
def notes() -> redis.Redis:
    url, tls = redis_client(os.environ["REDIS_URL"])
    return redis.Redis.from_url(url, **tls)


def note(*words: object) -> None:
    notes().rpush("notes", " ".join(map(str, (round(time.time(), 3), os.environ["RELEASE_GENERATION"], *words))))


def done(number: int, seconds: float) -> None:
    note("begin", number)
    time.sleep(seconds)
    note("end", number)


@app.task
def counted(number: int, seconds: float = 0.01) -> None:
    done(number, seconds)


@app.task(acks_late=False)
def early(number: int, seconds: float) -> None:
    done(number, seconds)


@app.task
def tick() -> None:
    pass


@before_task_publish.connect
def ticking(sender: str | None = None, **_more: object) -> None:
    if sender == "bookshop.tasks.tick":
        note("tick", 0)
"""
NEWER = """

@app.task
def newer(number: int, seconds: float = 0.01) -> None:
    done(number, seconds)
"""
NOTING_SETTINGS = """
CELERY_BEAT_SCHEDULE["tick"] = {"task": "bookshop.tasks.tick", "schedule": 10}
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 4
"""
DROPPED = '''"""Nobody wrote under another name after all."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("bookshop", "0003_pen")]

    operations = [migrations.RemoveField("author", "pen")]
'''


# One worker has loaded the app at once, the others three seconds later.
UNEVEN = """
import os  # noqa: E402
import time  # noqa: E402

try:
    os.close(os.open(os.path.join(os.environ["HOME"], "first"), os.O_CREAT | os.O_EXCL))
except FileExistsError:
    time.sleep(3)
"""


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    if old not in text:
        raise SystemExit(f"cargo: {path.name} no longer holds {old!r}: bring lab/cargo.py up to date")
    path.write_text(text.replace(old, new, 1))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def good(app: Path, number: str) -> None:
    version = f"1.{number}.0"
    replace(app / "bookshop" / "__init__.py", '__version__ = "1.0.0"', f'__version__ = "{version}"')
    append(app / "bookshop" / "static" / "bookshop" / "bookshop.css", f"/* {version} */\n")
    append(app / "bookshop" / "static" / "favicon.svg", f"<!-- {version} -->\n")


def relocked(app: Path, number: str) -> None:
    good(app, number)
    append(app / "requirements.lock", f"# {number}\n")


def migration(app: Path, number: str) -> None:
    good(app, number)
    stock = "    stock = models.PositiveIntegerField(default=0)\n"
    column = '    isbn = models.CharField(max_length=13, blank=True, default="", db_default="")\n'
    replace(app / "bookshop" / "models.py", stock, stock + column)
    (app / "bookshop" / "migrations" / "0003_isbn.py").write_text(COLUMN)


def hooked(app: Path, number: str) -> None:
    good(app, number)
    directory = app / ".slipway" / "hooks"
    directory.mkdir(parents=True)
    for point in POINTS:
        shutil.copy(Path(__file__).resolve().parent / "hook", directory / point)


def needing(app: Path, number: str) -> None:
    good(app, number)
    append(app / ".slipway" / "settings", "PAYMENT_KEY  # of the lab's tests\n")


def bad_migration(app: Path, _number: str) -> None:
    (app / "bookshop" / "migrations" / "0003_fails.py").write_text(FAILING)


def half_migration(app: Path, _number: str) -> None:
    (app / "bookshop" / "migrations" / "0003_pen.py").write_text(PEN)
    (app / "bookshop" / "migrations" / "0004_fails.py").write_text(FAILING.replace("0002_first_books", "0003_pen"))


def rename(app: Path, number: str) -> None:
    good(app, number)
    name = "    name = models.CharField(max_length=200, unique=True)\n"
    column = "    pen_name = models.CharField(max_length=200, null=True, blank=True)\n"
    replace(app / "bookshop" / "models.py", name, name + column)
    (app / "bookshop" / "migrations" / "0003_pen.py").write_text(PEN)
    (app / "bookshop" / "migrations" / "0004_pen_name.py").write_text(PEN_NAME)


def drop(app: Path, number: str) -> None:
    good(app, number)
    (app / "bookshop" / "migrations" / "0003_pen.py").write_text(PEN)
    (app / "bookshop" / "migrations" / "0004_drop_pen.py").write_text(DROPPED)


def stuck(app: Path, number: str) -> None:
    good(app, number)
    (app / "bookshop" / "migrations" / "0003_pen.py").write_text(PEN)
    (app / "bookshop" / "migrations" / "0004_sleeps.py").write_text(SLEEPING)


def ticking(app: Path, number: str) -> None:
    good(app, number)
    append(app / "bookshop" / "views.py", TICKS)
    line = '    path("slow", views.slow, name="slow"),\n'
    replace(app / "config" / "urls.py", line, line + '    path("ticks", views.ticks, name="ticks"),\n')


def counting(app: Path, number: str) -> None:
    good(app, number)
    tasks = app / "bookshop" / "tasks.py"
    replace(tasks, "import datetime\n", "import datetime\nimport functools\nimport os\nimport time\n\nimport redis\n")
    replace(
        tasks, "from config.celery import app\n",
        "from celery.signals import before_task_publish\nfrom config.celery import app\n"
        "from config.environment import redis_client\n",
    )  # fmt: skip
    append(tasks, NOTING + (NEWER if int(number) > 1 else ""))
    append(app / "config" / "settings.py", NOTING_SETTINGS)


def hasty(app: Path, number: str) -> None:
    counting(app, number)
    replace(app / "config" / "settings.py", '"visibility_timeout": 600', '"visibility_timeout": 5')


def bad(app: Path, _number: str) -> None:
    replace(app / "bookshop" / "health.py", "status=200 if good else 503", "status=500")


def crash(app: Path, _number: str) -> None:
    append(app / "bookshop" / "views.py", "\nimport bookshop.recommendations  # noqa\n")


def hang(app: Path, _number: str) -> None:
    replace(app / "bookshop" / "health.py", "    results = {", "    time.sleep(3600)\n    results = {")


def sour(app: Path, _number: str) -> None:
    replace(
        app / "bookshop" / "views.py",
        "    recommended = ",
        '    raise RuntimeError("the milk is sour")\n    recommended = ',
    )


def uneven(app: Path, _number: str) -> None:
    append(app / "config" / "wsgi.py", UNEVEN)


def featherweight(app: Path, number: str) -> None:
    replace(app / "config" / "wsgi.py", 'VERSION = "0"', f'VERSION = "{number}"')
    # Its requirements are the bookshop's own server and nothing else, hashes included.
    lock = (BOOKSHOP / "requirements.lock").read_text()
    wanted = re.findall(r"^(?:gunicorn|packaging)==[^\n]*(?:\n    --hash[^\n]*)+", lock, re.MULTILINE)
    if len(wanted) != 2:
        raise SystemExit("cargo: gunicorn and packaging are not in the bookshop's lock: bring lab/cargo.py up to date")
    # Each with a lock of its own, so that each builds.
    (app / "requirements.lock").write_text("\n".join([f"# {number}", *wanted]) + "\n")


VARIANTS: dict[str, tuple[Path, Callable[[Path, str], None]]] = {
    "good": (BOOKSHOP, good),
    "relocked": (BOOKSHOP, relocked),
    "migration": (BOOKSHOP, migration),
    "bad-migration": (BOOKSHOP, bad_migration),
    "hooked": (BOOKSHOP, hooked),
    "needing": (BOOKSHOP, needing),
    "half-migration": (BOOKSHOP, half_migration),
    "rename": (BOOKSHOP, rename),
    "drop": (BOOKSHOP, drop),
    "stuck": (BOOKSHOP, stuck),
    "ticking": (BOOKSHOP, ticking),
    "counting": (BOOKSHOP, counting),
    "hasty": (BOOKSHOP, hasty),
    "bad": (BOOKSHOP, bad),
    "crash": (BOOKSHOP, crash),
    "hang": (BOOKSHOP, hang),
    "sour": (BOOKSHOP, sour),
    "uneven": (BOOKSHOP, uneven),
    "featherweight": (FEATHERWEIGHT, featherweight),
}
NUMBERED = (
    "good", "relocked", "migration", "rename", "drop", "stuck", "ticking", "hooked", "needing", "counting",
    "hasty", "featherweight",
)  # fmt: skip


def parse(name: str) -> tuple[str, str]:
    kind, _, number = name.rpartition("-")
    if kind in NUMBERED and re.fullmatch(r"[0-9]{1,6}", number):
        return kind, number
    if name in VARIANTS and name not in NUMBERED:
        return name, ""
    raise SystemExit(
        f"cargo: there is no variant {name!r}; there are {', '.join(VARIANTS)}, the first numbered: good-1"
    )


def run(*words: str, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(words, cwd=cwd, env={**environment, **COMMITTER}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"cargo: {' '.join(words[:3])} failed: {done.stderr.strip()}")
    return done.stdout


def make(name: str, scratch: Path) -> dict[str, Any]:
    kind, number = parse(name)
    source, change = VARIANTS[kind]
    tree = scratch / "sources" / name
    shutil.rmtree(tree, ignore_errors=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, tree, ignore=JUNK)
    change(tree, number)
    run("git", "init", "--quiet", "--initial-branch=main", cwd=tree)
    run("git", "add", "--all", cwd=tree)
    run("git", "commit", "--quiet", "--message", name, cwd=tree)
    commit = run("git", "rev-parse", "HEAD", cwd=tree).strip()
    artifact = scratch / f"bookshop-{commit}.tar.gz"
    words = [sys.executable, str(ROOT / "bin" / "pack"), "--repo", str(tree), "--name", "bookshop"]
    packed: dict[str, Any] = json.loads(run(*words, "--output", str(scratch), "--json", cwd=ROOT))
    assert packed["sha256"] == hashlib.sha256(artifact.read_bytes()).hexdigest()
    shutil.rmtree(tree)
    return {**packed, "variant": name, "version": f"1.{number or 0}.0"}


def variants(names: list[str], lab: str | None = None) -> dict[str, dict[str, Any]]:
    """Make the variants of these names for a lab; return what is known about each."""
    scratch = ROOT / ".lab" / (lab or os.environ.get("SLIPWAY_LAB") or "lab") / "cargo"
    for name in names:
        parse(name)
    return {name: make(name, scratch) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="+", metavar="VARIANT")
    print(json.dumps(variants(parser.parse_args().variants), indent=2))


if __name__ == "__main__":
    main()
