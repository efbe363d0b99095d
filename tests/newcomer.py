"""Somebody's own app, small and unlike the bookshop: other names, no Celery, a directory of its own in its repository.
And a copy of this repository, as somebody has it who starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("asgiref", "dj-database-url", "django", "gunicorn", "packaging", "psycopg", "psycopg-binary", "sqlparse",
            "typing-extensions")  # fmt: skip
COMMITTER = {
    "GIT_AUTHOR_NAME": "A newcomer",
    "GIT_AUTHOR_EMAIL": "newcomer@example.org",
    "GIT_COMMITTER_NAME": "A newcomer",
    "GIT_COMMITTER_EMAIL": "newcomer@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}
FILES = {
    "manage.py": """\
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ledger.local")
execute_from_command_line(sys.argv)
""",
    "ledger/__init__.py": "",
    "ledger/local.py": "import os\n\nfrom ledger.base import *\n\nDEBUG = True\nTOKEN = os.environ['AT_HOME']\n",
    "ledger/base.py": """\
import os
from pathlib import Path

import dj_database_url

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = os.environ.get("LEDGER_DEBUG", "") == "1"
ALLOWED_HOSTS = os.environ.get("HOSTS", "localhost").split(",")
CSRF_TRUSTED_ORIGINS = os.environ.get("ORIGINS", "https://localhost").split(",")
CURRENCY = os.getenv("LEDGER_CURRENCY", "EUR")
INSTALLED_APPS = ["django.contrib.staticfiles", "ledger"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "ledger.urls"
WSGI_APPLICATION = "ledger.wsgi.application"
DATABASES = {"default": dj_database_url.config(default=f"sqlite:///{BASE_DIR}/db.sqlite3")}
STATIC_URL = "/static/"
STATIC_ROOT = os.environ.get("STATIC_ROOT", BASE_DIR / "staticfiles")
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
""",
    "ledger/wsgi.py": """\
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ledger.base")
application = get_wsgi_application()
""",
    "ledger/models.py": """\
from django.db import models


class Visit(models.Model):
    at = models.DateTimeField(auto_now_add=True)
""",
    "ledger/migrations/__init__.py": "",
    "ledger/migrations/0001_initial.py": """\
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            "Visit",
            [
                ("id", models.AutoField(primary_key=True)),
                ("at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
    ]
""",
    "ledger/urls.py": """\
from django.db import connection
from django.http import HttpResponse
from django.urls import path

from ledger.models import Visit


def home(request):
    Visit.objects.create()
    kind = connection.vendor
    return HttpResponse(f"{Visit.objects.count()} visits in {kind}, edition 1")


def health(request):
    Visit.objects.exists()
    return HttpResponse("ok")


urlpatterns = [path("", home), path("health/", health)]
""",
    "ledger/static/ledger.css": "body { color: black }\n",
}


def lock() -> str:
    """What this app needs of the bookshop's locked requirements."""
    entries = re.split(r"^(?=[a-z0-9._-]+==)", (ROOT / "examples/bookshop/requirements.lock").read_text(), flags=re.M)
    return "".join(entry for entry in entries if entry.split("==")[0] in PACKAGES)


def git(directory: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *words],
        env={**os.environ, **COMMITTER}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def commit(directory: Path, message: str) -> str:
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", message)
    return git(directory, "rev-parse", "HEAD")


def write_app(directory: Path) -> Path:
    """The app's repository; the app is in web/."""
    for name, text in {**FILES, "requirements.txt": lock()}.items():
        path = directory / "web" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(directory, "init", "--quiet")
    commit(directory, "The ledger")
    return directory


def write_slipway(directory: Path) -> Path:
    """A checkout of this repository as it stands, with the tool set of this one."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, directory / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    (directory / ".venv").symlink_to((ROOT / ".venv").resolve())
    git(directory, "init", "--quiet")
    commit(directory, "Slipway")
    return directory
