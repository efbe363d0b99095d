"""examples/bookshop keeps its promises: its own tests, on the Python and the packages it is released with."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[2] / "examples" / "bookshop"


@pytest.fixture(scope="module")
def run():
    # bin/setup keeps a uv of its own where the machine has none that works.
    own = APP.parents[1] / ".cache" / "uv" / "bin" / "uv"
    uv = str(own) if own.exists() else shutil.which("uv")
    assert uv, "run bin/setup first"
    words = [uv, "run", "--quiet", "--isolated", "--no-project", "--python", "3.11"]
    # No setting of whoever runs this reaches the app.
    kept = {key: value for key, value in os.environ.items() if not re.match("DJANGO_|FEATURE_|VIRTUAL_ENV", key)}

    def run(*program: str, **environment: str) -> str:
        done = subprocess.run(
            [*words, "--with-requirements", "requirements.lock", *program],
            cwd=APP,
            env={**kept, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


def test_its_own_tests_pass(run) -> None:
    output = run("python", "manage.py", "test", "--settings", "config.settings_test")
    ran = re.search(r"^Ran (\d+) tests", output, re.MULTILINE)
    assert ran, output
    assert int(ran[1]) >= 28


def test_no_migration_is_missing(run) -> None:
    run("python", "manage.py", "makemigrations", "--check", "--dry-run", DATABASE_URL="sqlite://:memory:")


def test_the_lock_names_every_requirement_with_hashes_and_no_address() -> None:
    lock = (APP / "requirements.lock").read_text()
    pinned = re.findall(r"^([a-z0-9-]+)==\S+ (\\?)", lock, re.MULTILINE)
    asked = re.findall(r"^([A-Za-z0-9-]+)", (APP / "requirements.in").read_text(), re.MULTILINE)
    assert {name.lower() for name in asked} <= {name for name, _ in pinned}
    assert all(continued for _, continued in pinned)
    assert "http" not in lock
