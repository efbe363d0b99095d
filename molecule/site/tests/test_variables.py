"""A wrong variable is one sentence and no change."""

from __future__ import annotations

import pytest

from tests.outside import changes, play


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"nginx_hsts_max_agee": 1},
            "nginx_hsts_max_agee (set by -e or by the inventory) is a variable that nothing reads;",
        ),
        ({"app_domian": "x.example"}, "did you mean app_domain?"),
        ({"nginx_worker_connections": "many"}, "nginx_worker_connections"),
        ({"nginx_proxy_read_timeout": 5}, "nginx_proxy_read_timeout is 5, below 30"),
        ({"base_timezone": "../../etc/shadow"}, "base_timezone is not a time zone such as Etc/UTC"),
        ({"redis_max_memory_policy": "allkeys-lru"}, "redis_max_memory_policy"),
        ({"deployers_public_keys": ["not a key"]}, "deployers_public_keys is not a list of ssh public keys"),
        ({"postgresql_app_password": "short"}, "postgresql_app_password is not a password of 16 characters or more"),
        ({"tls_names": ["other.example"]}, "does not cover other.example"),
    ],
    ids=["misspelt", "misspelt app_", "type", "range", "hostile", "choice", "key", "weak password", "certificate"],
)
def test_a_wrong_variable_stops_the_run_before_the_first_change(lab, variables, sentence):
    done = play(lab, "playbooks/site.yml", **variables)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert sentence in said
    assert not any(changes(done.stdout).values())
    # Not a single host was looked at, let alone changed.
    assert "TASK [Learn what system each host runs]" not in done.stdout
