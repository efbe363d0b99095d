"""An ACME server, and an edge that has everything but a certificate; afterwards it has the lab's own again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acme import ASTRAY, CONVERGE, HASHED, NAME, SECOND, WIPE, Acme, Site
from tests.outside import play


@pytest.fixture(scope="session")
def acme(lab: dict[str, Any], app1: Any) -> Iterator[Acme]:
    edge = lab["edge_address"]
    # The last name leads to nobody.
    server = Acme(lab, {NAME: edge, SECOND: edge, ASTRAY: "127.0.0.9"})
    app1.check_output(f"mkdir -p /var/www/app/static && echo 'body {{}}' >/var/www/app{HASHED}")
    yield server
    server.remove()
    app1.check_output(f"rm /var/www/app{HASHED}")
    app1.check_output(WIPE)
    app1.check_output("systemctl reset-failed")
    done = play(lab, CONVERGE)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture(scope="session")
def root(acme: Acme, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The authority of what pebble issues, which it makes when it starts."""
    return acme.save_root(tmp_path_factory.mktemp("acme") / "root.pem")


@pytest.fixture(scope="session")
def site(lab: dict[str, Any], acme: Acme) -> Site:
    return Site(lab, acme)


@pytest.fixture
def responder(app1: Any) -> Iterator[dict[str, str]]:
    """A certificate that names a responder, and that responder, on the edge host itself."""
    place = "/run/responder"
    script = f"""
        mkdir -p {place} && cd {place}
        make="openssl req -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256"
        $make -x509 -keyout ca.key -out ca.pem -days 90 -subj /CN=Staple
        $make -keyout leaf.key -out leaf.csr -subj /CN={NAME}
        printf 'subjectAltName=DNS:{NAME}\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:8090\n' >ext
        openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -set_serial 0x1001 -days 60 -extfile ext -out leaf.pem
        printf 'V\t%s\t\t1001\tunknown\t/CN={NAME}\n' "$(date -d '+60 days' +%y%m%d%H%M%SZ)" >index.txt
    """
    app1.check_output(f"sh -ec {shlex.quote(script)} 2>/dev/null")
    app1.check_output(
        f"systemd-run -q --unit=test-responder -p WorkingDirectory={place} openssl ocsp -index index.txt -port 8090"
        " -rsigner ca.pem -rkey ca.key -CA ca.pem -nmin 60"
    )
    yield {
        "chain": app1.check_output(f"cat {place}/leaf.pem {place}/ca.pem"),
        "key": app1.check_output(f"cat {place}/leaf.key"),
    }
    app1.check_output(f"systemctl stop test-responder && rm -r {place}")
