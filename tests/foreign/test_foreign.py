"""Django projects that were not made for this, as PyPI has them, with a file of app_* variables each: a login, an
upload and a background task, through HTTPS, and for one of them the next version and the way back.

On a lab of its own: `bin/test foreign`, and `make test-full`.
"""

from __future__ import annotations

import hashlib
import http.client
import http.cookiejar
import json
import re
import shlex
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.state import Lab
from tests import newcomer
from tests.outside import context, play

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache/foreign"
# What the variables of an app reach: with them alone, a host that is made for one becomes another's.
REACHED = "--tags=nginx,runtime,envdir,services,release"
PASSWORD = "correct horse battery"
# A picture of one pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63e04a490100014e00d3c4e135e5"
    "0000000049454e44ae426082"
)


def sdist(project: str, version: str) -> Path:
    """The project's source distribution, by pip and proved by the digest that examples/foreign/README.md names."""
    wanted = re.search(rf"pypi.org/project/{project}/\) {version}.*`([0-9a-f]{{64}})`", README)
    assert wanted, f"examples/foreign/README.md does not name {project} {version}"
    name = f"{project.replace('-', '_')}-{version}.tar.gz"
    path = CACHE / name
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        own = ROOT / ".cache/uv/bin/uv"
        uv = str(own) if own.exists() else shutil.which("uv")
        assert uv, "run bin/setup first"
        done = subprocess.run(
            [uv, "tool", "run", "--no-config", "pip", "download", "--quiet", "--no-deps", f"--no-binary={project}",
             f"--dest={CACHE}", f"{project}=={version}"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wanted[1]
    return path


README = (ROOT / "examples/foreign/README.md").read_text()


# What an operator of pretalx does at first: a person, an organiser and a conference.
CONFERENCE = f"""
import datetime
from pretalx.event.models import Event, Organiser
from pretalx.person.models import User
today = datetime.date.today()
User.objects.create_superuser(email="ada@example.org", name="Ada", password="{PASSWORD}")
by = Organiser.objects.create(name="Analysts", slug="analysts")
Event.objects.create(
    name="Conf", slug="conf", organiser=by, date_from=today, date_to=today, email="ada@example.org",
    timezone="UTC", locale_array="en", content_locale_array="en", is_public=True,
)
"""

# And one of the issue tracker: a person, and a queue that takes what is put into a directory of the host.
QUEUES = f"""
import os
from django.contrib.auth import get_user_model
from helpdesk.models import Queue
get_user_model().objects.create_superuser("ada", "ada@example.org", "{PASSWORD}")
os.mkdir("/data/mail")
Queue.objects.create(
    title="Engine", slug="engine", email_address="help@example.org", allow_public_submission=True,
    allow_email_submission=True, email_box_type="local", email_box_local_dir="/data/mail",
)
"""


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

    def post(
        self, path: str, fields: dict[str, str], files: dict[str, tuple[str, bytes, str]], form: str = ""
    ) -> tuple[int, str]:
        """What a form sends, with the token against forgery that it has itself; it is at ``path`` unless given."""
        token = re.search(r"csrfmiddlewaretoken[^>]*?value=\"?(\w+)", form or self.get(path)[1])
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
    return socket.create_connection((address, 443), timeout, source)


class Foreign:
    """One of them: packed as it came, on hosts that its variables describe."""

    def __init__(self, lab: dict[str, Any], name: str, project: str) -> None:
        self.lab, self.project = lab, project
        self.file = ROOT / f"examples/foreign/{name}.yml"
        self.app_name: str = yaml.safe_load(self.file.read_text())["app_name"]
        self.home = Lab(lab["name"]).directory / "foreign" / name
        if not self.home.exists():
            self.home.mkdir(parents=True)
            newcomer.git(self.home, "init", "-q")
        self.variables = {
            # What the lab has for the bookshop.
            "app_secrets": {},
            # What group_vars/lab says of the bookshop.
            "app_django_settings_module": "", "app_wsgi": "", "app_requirements": "", "app_health_path": "",
            "app_liveness_path": "", "app_celery_app": "", "app_settings_schema": {},
        }  # fmt: skip

    def play(self, playbook: str, *options: str, **more: Any) -> str:
        words = ["-e", json.dumps({**self.variables, **more}), "-e", f"@{self.file}", *options]
        done = play(self.lab, f"playbooks/{playbook}.yml", *words)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr
        return done.stdout

    def commit(self, version: str) -> None:
        """A source distribution, instead of what was there."""
        with tempfile.TemporaryDirectory(dir=self.home.parent) as place:
            with tarfile.open(sdist(self.project, version)) as archive:
                archive.extractall(place, filter="data")
            (unpacked,) = Path(place).iterdir()
            (self.home / ".git").rename(unpacked / ".git")
            shutil.rmtree(self.home)
            unpacked.rename(self.home)
        # What a source distribution has is all of it, whatever its .gitignore says.
        newcomer.git(self.home, "add", "--all", "--force")
        newcomer.git(self.home, "commit", "-q", "--allow-empty", "-m", f"{self.project} {version}")

    def deploy(self, version: str) -> str:
        """Say what the deploy said; ``release`` is then the one that it made."""
        self.commit(version)
        packed = subprocess.run(
            [str(ROOT / "bin/pack"), "--repo", str(self.home), "--path", ".", "--name", self.app_name, "--json",
             "--output", str(self.home.parent)],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        found = json.loads(packed.stdout)
        self.release = found["id"]
        return self.play("deploy", release_artifact=found["artifact"])

    def manage(self, program: str, *flags: str) -> None:
        """What an operator types on the host: Python, in the live release."""
        self.on("app1", f"app-manage shell {' '.join(flags)} --command {shlex.quote(program)}")

    def on(self, host: str, command: str, given: str = "") -> str:
        container = self.lab["hosts"][host]["container"]
        done = subprocess.run(
            ["docker", "exec", "-i", container, "sh", "-c", command],
            input=given, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def lab() -> dict[str, Any]:
    facts: dict[str, Any] = Lab.chosen().facts()
    done = play(facts, "playbooks/bootstrap.yml")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    return facts


def forget(foreign: Foreign) -> None:
    """Between two of them: a host and a database that never had an app."""
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
    pretalx = Foreign(lab, "pretalx", "pretalx")
    pretalx.play("site")
    said = pretalx.deploy("2025.2.2")
    assert "app_celery_app is pretalx.celery_app:app" in said
    assert "installed without hashes" in said
    record = json.loads(pretalx.on("app1", "cat /opt/app/current/release.json"))
    assert record["app"]["health_path"] == "/healthcheck/"
    assert record["app"]["directory"] == "src"
    assert record["app"]["guessed"]["wsgi"] == "pretalx.wsgi:application (from pretalx/wsgi.py)"
    assert "django==5.2." in pretalx.on("app1", "cat /opt/app/current/requirements.installed")

    pretalx.manage(CONFERENCE, "--unsafe-disable-scopes")
    browser = Browser(lab)
    status, page = browser.post("/orga/login/", {"login_email": "ada@example.org", "login_password": PASSWORD}, {})
    assert status == 200, page
    status, page = browser.get("/conf/me/")
    assert (status, "ada@example.org" in page) == (200, True), page
    style = re.search(r"/static/[^\" >]+\.[0-9a-f]{12}\.css", page)
    assert style, page
    status, _, headers = browser.raw(style[0])
    assert (status, "immutable" in headers["Cache-Control"]) == (200, True)

    # What comes as PNG is made WebP by the worker, ten seconds later.
    fields = {"form": "profile", "name": "Ada", "biography": "Wrote the first program."}
    status, page = browser.post("/conf/me/", fields, {"avatar": ("ada.png", PNG, "image/png")})
    assert "/media/avatars/" in page, page
    worked = wait_for(lambda: "".join(re.findall(r"/media/avatars/\w+\.webp", browser.get("/conf/me/")[1])[:1]))
    status, picture, headers = browser.raw(worked)
    assert (status, picture[8:12]) == (200, b"WEBP")
    assert "sandbox" in headers["Content-Security-Policy"]

    assert "app-job-periodic.timer" in pretalx.on("app1", "systemctl list-timers --no-legend")
    pretalx.on("app1", "systemctl start app-job-periodic.service")
    assert "Finished" in pretalx.on("app1", f"journalctl -u 'app-job-periodic@{pretalx.release}.*'")
    forget(pretalx)


def attachment(browser: Browser, ticket: str, name: str) -> bytes:
    """What is behind the link that a ticket's page has to it; what came by mail has a number before its name."""
    status, page = browser.get(ticket)
    link = re.search(rf"href='(/media/helpdesk/attachments/[^']+{re.escape(name)})'", page)
    assert (status, bool(link)) == (200, True), page
    assert link
    status, content, headers = browser.raw(link[1])
    assert status == 200, link[1]
    assert headers["X-Release"] is None  # the edge's own answer
    return content


def test_helpdesk(lab: dict[str, Any]) -> None:
    """An issue tracker: its tickets, its mail by a timer, its next version, and the way back from that."""
    helpdesk = Foreign(lab, "helpdesk", "django-helpdesk")
    helpdesk.play("site", REACHED)
    said = helpdesk.deploy("1.7.0")
    assert "app_python_path is .. (standalone.config.local_settings is seen from there)" in said
    assert "app_wsgi is standalone.config.wsgi:application" in said
    assert "app-job-periodic" not in helpdesk.on("app1", "systemctl list-timers --all --no-legend")
    first = helpdesk.release

    helpdesk.manage(QUEUES)
    browser = Browser(lab)
    status, page = browser.post("/login/", {"username": "ada", "password": PASSWORD, "next": "/dashboard/"}, {})
    assert (status, "Logout" in page) == (200, True), page
    assert {cookie.name for cookie in browser.jar if cookie.secure} == {"csrftoken", "sessionid"}
    fields = {"queue": "1", "title": "The engine weaves", "body": "Algebraical patterns.", "priority": "3"}
    status, page = browser.post("/tickets/submit/", fields, {"attachment": ("loom.png", PNG, "image/png")})
    assert (status, "Algebraical patterns." in page) == (200, True), page
    assert attachment(browser, "/tickets/1/", "loom.png") == PNG

    # What arrives by mail becomes a ticket when the timer's job runs.
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "charles@example.org", "help@example.org", "No funds"
    mail.set_content("The engine is not built.")
    mail.add_attachment(PNG, maintype="image", subtype="png", filename="plan.png")
    helpdesk.on("app1", "cat >/data/mail/1.eml", mail.as_string())
    helpdesk.on("app1", "systemctl start app-job-mail.service")
    assert attachment(browser, "/tickets/2/", "plan.png") == PNG

    # The next version has the same people, sessions and files, and what it is given stays when it goes.
    helpdesk.deploy("1.8.0")
    assert browser.raw("/tickets/1/")[2]["X-Release"] == helpdesk.release != first
    assert "\nVersion: 1.8.0\n" in helpdesk.on("app1", "cat /opt/app/current/src/PKG-INFO")
    assert attachment(browser, "/tickets/1/", "loom.png") == PNG
    fields = {**fields, "title": "The engine prints"}
    status, page = browser.post("/tickets/submit/", fields, {"attachment": ("print.png", PNG, "image/png")})
    assert (status, "The engine prints" in page) == (200, True), page
    helpdesk.play("rollback")
    assert browser.raw("/tickets/1/")[2]["X-Release"] == first
    assert attachment(browser, "/tickets/3/", "print.png") == PNG
    assert attachment(browser, "/tickets/1/", "loom.png") == PNG
    forget(helpdesk)


def test_import_export(lab: dict[str, Any]) -> None:
    """A project without WSGI module, production settings, hashed names, health path and Celery."""
    shop = Foreign(lab, "import-export", "django-import-export")
    shop.play("site", REACHED)
    said = shop.deploy("4.4.3")
    assert "any answer of / below 500" in said
    shop.on("app1", "! systemctl --no-legend list-units 'celery-*' | grep -q active")
    shop.manage(
        f"from django.contrib.auth.models import User; User.objects.create_superuser('ada', password='{PASSWORD}')"
    )
    browser = Browser(lab)
    status, page = browser.post("/admin/login/", {"username": "ada", "password": PASSWORD, "next": "/admin/"}, {})
    assert (status, "Site administration" in page) == (200, True), page
    status, _, headers = browser.raw("/static/admin/css/base.css")
    assert status == 200
    assert "immutable" not in headers["Cache-Control"]
    assert headers["X-Release"] is None  # the edge's own answer
    assert browser.raw("/admin/")[2]["X-Release"] == shop.release

    people = b"id,name\n,Woolf\n,Abbott\n"
    where = "/admin/core/author/import/"
    status, page = browser.post(where, {"format": "0", "resource": "0"}, {"import_file": ("a.csv", people, "text/csv")})
    assert (status, "Confirm import" in page) == (200, True), page
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)"(?: value="([^"]*)")?', page))
    status, page = browser.post("/admin/core/author/process_import/", hidden, {}, form=page)
    assert (status, "Abbott" in page) == (200, True), page


def wait_for(look: Any, seconds: float = 60) -> str:
    end = time.monotonic() + seconds
    while (found := str(look()).strip()) in ("", "0") and time.monotonic() < end:
        time.sleep(1)
    return found
