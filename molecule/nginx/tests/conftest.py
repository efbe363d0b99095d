"""Two stand-ins for the app on the edge host, and some static files, gone after the tests."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

PROGRAM = (Path(__file__).parent / "upstream.py").read_bytes()
STATIC = "/var/www/app/static"
HASHED = "css/site.0123456789ab.css"


def write(host: Any, path: str, content: bytes) -> None:
    encoded = base64.b64encode(content).decode()
    host.check_output(f"mkdir -p $(dirname {path}) && echo {encoded} | base64 -d >{path}")


@pytest.fixture(scope="session")
def upstreams(app1: Any) -> Any:
    assert not app1.file("/run/app/current.sock").exists, "a release is live: these tests need a host without one"
    write(app1, "/run/test-upstream.py", PROGRAM)
    for release in ("a", "b"):
        directory = f"/run/app/test-{release}"
        app1.check_output(f"mkdir -p {directory} && chgrp app-edge {directory} && chmod 0750 {directory}")
        app1.check_output(
            f"systemd-run -q --unit=test-upstream-{release} -p Group=app-edge -p UMask=0002"
            f" python3 /run/test-upstream.py {directory} {release}"
        )
        app1.check_output(f"timeout 10 sh -c 'until test -S {directory}/gunicorn.sock; do sleep 0.1; done'")
    yield
    for release in ("a", "b"):
        app1.check_output(f"systemctl stop test-upstream-{release}")
    app1.check_output("rm -rf /run/app/test-* /run/test-upstream.py")


@pytest.fixture
def live(app1: Any, upstreams: Any) -> Any:
    """Make a stand-in the live one, as releasectl does: by renaming a link over another."""

    def switch(release: str) -> None:
        app1.check_output(
            f"ln -sfn test-{release}/gunicorn.sock /run/app/next.sock && mv -T /run/app/next.sock /run/app/current.sock"
        )

    switch("a")
    yield switch
    app1.check_output("rm -f /run/app/current.sock")


@pytest.fixture
def statics(app1: Any) -> Any:
    """A published hashed file, and a release with a file without a hash behind `current`."""
    had_www = app1.file("/var/www/app").exists
    had_app = app1.file("/opt/app").exists
    write(app1, f"{STATIC}/{HASHED}", b"body { color: teal } " * 200)
    for release in ("a", "b"):
        write(app1, f"/opt/app/test-{release}/static/robots.txt", b"of release " + release.encode())
    write(app1, "/opt/app/test-a/secret.py", b"SECRET")
    app1.check_output("ln -sfn test-a /opt/app/current")
    yield
    app1.check_output(f"rm -rf /opt/app/current /opt/app/test-a /opt/app/test-b {STATIC}/{HASHED}")
    if not had_www:
        app1.check_output("rm -rf /var/www/app")
    if not had_app:
        app1.check_output("rm -rf /opt/app")
