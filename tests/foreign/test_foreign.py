"""Two Django projects that were not made for this, as PyPI has them, with a file of app_* variables each: a login, an
upload and a background task, through HTTPS.

On a lab of its own: `bin/test foreign`, and `make test-full`.
"""

from __future__ import annotations

import hashlib
import http.client
import http.cookiejar
import json
import re
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.state import Lab
from tests import newcomer
from tests.outside import context, play, secrets

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache/foreign"
PASSWORD = "correct horse battery"
# A picture of one pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63606060f80f0001040100"
    "5fe5c34b0000000049454e44ae426082"
)  # fmt: skip


def sdist(project: str, version: str) -> Path:
    """The project's source distribution, by pip and proved by the digest that examples/foreign/README.md names."""
    wanted = re.search(rf"pypi.org/project/{project}/\) {version}.*`([0-9a-f]{{64}})`", README)
    assert wanted, f"examples/foreign/README.md does not name {project} {version}"
    name = f"{project.replace('-', '_')}-{version}.tar.gz"
    path = CACHE / name
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip"] if has_pip() else ["python3", "-m", "pip"]
        subprocess.run(
            [*pip, "download", "--quiet", "--no-deps", f"--no-binary={project}", f"--dest={CACHE}",
             f"{project}=={version}"],
            check=True, capture_output=True,
        )  # fmt: skip
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wanted[1]
    return path


README = (ROOT / "examples/foreign/README.md").read_text()


def has_pip() -> bool:
    return subprocess.run([sys.executable, "-m", "pip", "--version"], check=False, capture_output=True).returncode == 0


class Browser:
    """One person's, with cookies, at the lab's edge."""

    def __init__(self, lab: dict[str, Any]) -> None:
        self.site = f"https://{lab['edge_name']}"
        self.jar = http.cookiejar.CookieJar()
        edge = lab["edge_address"]

        class Handler(urllib.request.HTTPSHandler):
            def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
                def connection(host: str, **words: Any) -> http.client.HTTPSConnection:
                    made = http.client.HTTPSConnection(host, context=context(lab["ca"]), timeout=words["timeout"])
                    made._create_connection = lambda _address, *more: socket_to(edge, *more)  # type: ignore[attr-defined]
                    return made

                return self.do_open(connection, request)  # type: ignore[arg-type]

        self.opener = urllib.request.build_opener(Handler(), urllib.request.HTTPCookieProcessor(self.jar))

    def get(self, path: str) -> tuple[int, str]:
        return self.ask(urllib.request.Request(urllib.parse.urljoin(self.site, path)))

    def raw(self, path: str) -> tuple[int, bytes, Any]:
        try:
            with self.opener.open(urllib.parse.urljoin(self.site, path), timeout=30) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def post(self, path: str, fields: dict[str, str], files: dict[str, tuple[str, bytes, str]]) -> tuple[int, str]:
        """What a form sends, with the token against forgery that the page before it gave."""
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.get(path)[1])
        assert token, f"{path} has no form"
        boundary = uuid.uuid4().hex
        body = b""
        for name, value in {**fields, "csrfmiddlewaretoken": token[1]}.items():
            body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, (filename, content, kind) in files.items():
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
            body += f"{head}Content-Type: {kind}\r\n\r\n".encode() + content + b"\r\n"
        body += f"--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Referer": urllib.parse.urljoin(self.site, path),
        }
        return self.ask(urllib.request.Request(urllib.parse.urljoin(self.site, path), body, headers))

    def ask(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with self.opener.open(request, timeout=30) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")


def socket_to(address: str, timeout: float, source: Any) -> Any:
    import socket

    return socket.create_connection((address, 443), timeout, source)


class Foreign:
    """One of them: packed as it came, on hosts that its variables describe."""

    def __init__(self, lab: dict[str, Any], name: str, project: str, version: str) -> None:
        self.lab, self.name = lab, name
        self.file = ROOT / f"examples/foreign/{name}.yml"
        self.app_name: str = yaml.safe_load(self.file.read_text())["app_name"]
        self.home = Lab(lab["name"]).directory / "foreign" / name
        if not self.home.exists():
            with tarfile.open(sdist(project, version)) as archive:
                archive.extractall(self.home.with_suffix(".unpacked"), filter="data")
            (unpacked,) = self.home.with_suffix(".unpacked").iterdir()
            unpacked.rename(self.home)
            newcomer.git(self.home, "init", "-q")
            # What a source distribution has is all of it, whatever its .gitignore says.
            newcomer.git(self.home, "add", "--all", "--force")
            newcomer.git(self.home, "commit", "-q", "-m", f"{project} {version}")
        found = secrets(lab)
        self.variables = {
            "vault_database_password": found["postgres_app_password"],
            "vault_redis_password": found["redis_app_password"],
            "vault_secret_key": found["django_secret_key"],
            # What group_vars/lab says of the bookshop.
            "app_django_settings_module": "", "app_wsgi": "", "app_requirements": "", "app_health_path": "",
            "app_liveness_path": "", "app_celery_app": "",
        }  # fmt: skip

    def play(self, playbook: str, **more: Any) -> str:
        words = ["-e", json.dumps({**self.variables, **more}), "-e", f"@{self.file}"]
        done = play(self.lab, f"playbooks/{playbook}.yml", *words)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr
        return done.stdout

    def deploy(self) -> str:
        packed = subprocess.run(
            [str(ROOT / "bin/pack"), "--repo", str(self.home), "--path", ".", "--name", self.app_name, "--json",
             "--output", str(self.home.parent)],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        found = json.loads(packed.stdout)
        self.release = found["id"]
        return self.play("deploy", release_artifact=found["artifact"])

    def on(self, host: str, command: str) -> str:
        container = self.lab["hosts"][host]["container"]
        done = subprocess.run(
            ["docker", "exec", "-i", container, "sh", "-c", command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def lab() -> dict[str, Any]:
    facts: dict[str, Any] = Lab.chosen().facts()
    return facts


def forget(foreign: Foreign) -> None:
    """Between the two: a host and a database that never had an app."""
    foreign.on(
        "app1",
        "systemctl stop app.target app.service; rm -rf /opt/app/current /opt/app/releases/* /var/lib/app/state.json"
        " /var/lib/app/generations/* /run/app/current.sock",
    )
    foreign.on(
        "data1",
        "runuser -u postgres -- psql -q app -c 'drop schema public cascade; create schema public authorization app'",
    )


def test_pretalx(lab: dict[str, Any]) -> None:
    """A project in src/, with Celery, uploads and a job of its own, run by what its code says."""
    pretalx = Foreign(lab, "pretalx", "pretalx", "2025.2.2")
    pretalx.play("bootstrap")
    pretalx.play("site")
    said = pretalx.deploy()
    assert "app_celery_app is pretalx.celery_app:app" in said
    assert "installed without hashes" in said
    record = json.loads(pretalx.on("app1", "cat /opt/app/current/release.json"))
    assert record["app"]["health_path"] == "/healthcheck/"
    assert record["app"]["directory"] == "src"
    assert record["app"]["guessed"]["wsgi"] == "pretalx.wsgi:application (from pretalx/wsgi.py)"
    assert "django==5.2." in pretalx.on("app1", "cat /opt/app/current/requirements.installed")

    pretalx.on(
        "app1",
        'app-manage shell -c "from pretalx.person.models import User; User.objects.create_superuser('
        f"email='ada@example.org', name='Ada', password='{PASSWORD}')\"",
    )
    browser = Browser(lab)
    status, page = browser.post("/orga/login/", {"login_email": "ada@example.org", "login_password": PASSWORD}, {})
    assert status == 200, page
    assert "Ada" in browser.get("/orga/me")[1]
    style = re.search(r'href="(/static/[^"]+\.[0-9a-f]{12}\.css)"', page)
    assert style, page
    status, _, headers = browser.raw(style[1])
    assert (status, "immutable" in headers["Cache-Control"]) == (200, True)

    # The picture is scaled by the worker, which leaves one more file beside it.
    fields = {"form": "profile", "name": "Ada", "email": "ada@example.org"}
    browser.post("/orga/me", fields, {"avatar": ("ada.png", PNG, "image/png")})
    page = browser.get("/orga/me")[1]
    picture = re.search(r"/media/avatars/[^\"' ]+\.(?:png|webp|jpg)", page)
    assert picture, page
    status, _, headers = browser.raw(picture[0])
    assert status == 200
    assert "sandbox" in headers["Content-Security-Policy"]
    worked = wait_for(
        lambda: pretalx.on(
            "app1", "journalctl -o cat -u 'celery-worker@*' | grep -c 'task_process_image.* succeeded'; :"
        )
    )
    assert int(worked) >= 1

    assert "app-job-periodic.timer" in pretalx.on("app1", "systemctl list-timers --no-legend")
    pretalx.on("app1", "systemctl start app-job-periodic.service")
    assert "Finished" in pretalx.on("app1", f"journalctl -u 'app-job-periodic@{pretalx.release}.*'")
    forget(pretalx)


def test_import_export(lab: dict[str, Any]) -> None:
    """A project without WSGI module, production settings, hashed names, health path and Celery."""
    shop = Foreign(lab, "import-export", "django-import-export", "4.4.3")
    shop.play("site")
    said = shop.deploy()
    assert "any answer of / below 500" in said
    shop.on("app1", "! systemctl --no-legend list-units 'celery-*' | grep -q active")
    shop.on(
        "app1",
        'app-manage shell -c "from django.contrib.auth.models import User; User.objects.create_superuser('
        f"'ada', password='{PASSWORD}')\"",
    )
    browser = Browser(lab)
    status, page = browser.post("/admin/login/", {"username": "ada", "password": PASSWORD, "next": "/admin/"}, {})
    assert (status, "Site administration" in page) == (200, True), page
    status, _, headers = browser.raw("/static/admin/css/base.css")
    assert status == 200
    assert "immutable" not in headers["Cache-Control"]
    assert headers["X-Release"] is None  # the edge's own answer
    assert browser.raw("/admin/")[2]["X-Release"] == shop.release

    books = b"id,name\n,Flatland\n,The Waves\n"
    status, page = browser.post(
        "/admin/core/author/import/" if "/admin/core/author/import/" in page else "/admin/core/category/import/",
        {"format": "0", "resource": ""},
        {"import_file": ("books.csv", books, "text/csv")},
    )
    assert (status, "Flatland" in page) == (200, True), page


def wait_for(look: Any, seconds: float = 60) -> str:
    end = time.monotonic() + seconds
    while (found := str(look()).strip()) in ("", "0") and time.monotonic() < end:
        time.sleep(1)
    return found
