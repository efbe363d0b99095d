"""The bookshop behind the edge, and somebody who may use its admin pages."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

NAME, PASSWORD = "keeper", 'it\'s "quoted" & 100% <long>; enough'
# As the app itself: its account, its settings, its release.
PROGRAM = """
import os, subprocess, sys
pid = subprocess.check_output(["pgrep", "-o", "-f", "gunicorn"], text=True).split()[0]
pairs = open(f"/proc/{pid}/environ").read().split("\\0")
environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
base = os.path.realpath("/opt/app/current")
subprocess.run(
    [base + "/venv/bin/python", "manage.py", "shell", "-c", sys.argv[1]],
    cwd=base + "/src", env=environment, check=True, user="app", group="app", extra_groups=[],
)
"""
MAKE = (
    "from django.contrib.auth.models import User;"
    f"User.objects.filter(username={NAME!r}).delete();"
    f"User.objects.create_superuser({NAME!r}, 'keeper@bookshop.example', {PASSWORD!r})"
)
CLEAR = (
    "from django.contrib.auth.models import User; from bookshop.models import Author, Book, Order;"
    f"User.objects.filter(username={NAME!r}).delete();"
    "Order.objects.filter(email__endswith='@edge.example').delete();"
    "Book.objects.filter(title__startswith='Edge').delete(); Author.objects.filter(name__startswith='Edge').delete()"
)


@pytest.fixture(scope="session")
def keeper(app1: Any) -> Any:
    """Name and password of somebody who may do everything in the shop's admin."""

    def manage(code: str) -> None:
        app1.check_output(f"python3 -c {shlex.quote(PROGRAM)} {shlex.quote(code)}")

    manage(MAKE)
    yield NAME, PASSWORD
    manage(CLEAR)
