"""What is told of the app (app_*): what could never be run is refused in words, before a host is asked anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = f"""
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [{ROOT}/group_vars/all/main.yml]
  tasks:
    - ansible.builtin.include_role: {{name: services, tasks_from: check}}
"""


def check(place: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    (place / "check.yml").write_text(PLAYBOOK)
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", place / "check.yml", "-e",
         json.dumps(variables)],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_what_can_be_run_is_taken(tmp_path: Path) -> None:
    done = check(tmp_path, app_asgi="shop.asgi:app", app_celery_app="none", app_django_settings_module="shop.settings")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"app_wsgi": "shop.wsgi"}, "app_wsgi and app_asgi, module:name"),
        ({"app_celery_app": "shop jobs"}, "app_celery_app, a module, module:name or none"),
        ({"app_django_settings_module": "shop/settings.py"}, "app_django_settings_module, a module"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    done = check(tmp_path, **variables)
    assert done.returncode == 2
    assert said in re.sub(r"\s+", " ", done.stdout), done.stdout + done.stderr
