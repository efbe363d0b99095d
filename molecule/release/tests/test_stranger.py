"""The app talks to a database and a broker of its own authority, or to none."""

from __future__ import annotations

import json

import pytest

STRANGER = {
    f"{role}_tls_{part}": f"{{{{ lab_stranger_{part} }}}}"
    for role in ("postgresql", "redis")
    for part in ("certificate", "private_key")
}


@pytest.fixture
def dress(ops, data1):
    """Give data1 other certificates, and end the connections that were made under the former ones."""

    def run(variables):
        done = ops.playbook(
            "playbooks/site.yml", "--limit", "data1", "--tags", "postgresql,redis", "-e", json.dumps(variables)
        )
        assert done.code == 0, done.output
        data1.check_output("systemctl restart 'postgresql@*' redis-server")

    return run


@pytest.mark.full
def test_with_a_certificate_of_another_authority_the_app_refuses_to_connect(edge, live, dress):
    """Names, keys and passwords are right; only who signed is not."""
    assert edge.get("/readyz").status == 200
    dress(STRANGER)
    try:
        answer = edge.get("/readyz")
        assert answer.status == 503
        told = json.loads(answer.text)
        assert (told["database"], told["broker"]) == ("failed", "failed")
    finally:
        dress({})
    edge.wait(30, release=live)
