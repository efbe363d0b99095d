"""Wrong variables are a sentence each, all of them in one run, and no change."""

from __future__ import annotations

import pytest

from tests.outside import changes, play

# What is set, and what is said of it.
WRONG = {
    "misspelt": (
        {"nginx_hsts_max_agee": 1},
        "nginx_hsts_max_agee (set by -e or by the inventory) is a variable that nothing reads;",
    ),
    "misspelt app_": ({"app_domian": "x.example"}, "did you mean app_domain?"),
    "type": ({"nginx_worker_connections": "many"}, "nginx_worker_connections"),
    "range": ({"nginx_proxy_read_timeout": 5}, "nginx_proxy_read_timeout is 5, below 30"),
    "hostile": ({"base_timezone": "../../etc/shadow"}, "base_timezone is not a time zone such as Etc/UTC"),
    "choice": ({"redis_max_memory_policy": "allkeys-lru"}, "redis_max_memory_policy"),
    "key": ({"deployers_public_keys": ["not a key"]}, "deployers_public_keys is not a list of ssh public keys"),
    "weak password": (
        {"postgresql_app_password": "short"},
        "postgresql_app_password is not a password of 16 characters or more",
    ),
}


@pytest.fixture(scope="module")
def refused(lab):
    """What an operator reads who got everything wrong at once."""
    together = {name: value for variables, _ in WRONG.values() for name, value in variables.items()}
    return play(lab, "playbooks/site.yml", **together)


def nothing_was_touched(done):
    assert done.returncode != 0
    assert not any(changes(done.stdout).values())
    # Not a single host was looked at, let alone changed.
    assert "TASK [Learn what system each host runs]" not in done.stdout


@pytest.mark.parametrize("sentence", [sentence for _, sentence in WRONG.values()], ids=list(WRONG))
def test_a_wrong_variable_is_named_before_the_first_change(refused, sentence):
    nothing_was_touched(refused)
    assert sentence in " ".join((refused.stdout + refused.stderr).split())


def test_a_certificate_for_other_names_stops_the_run_before_the_first_change(lab):
    done = play(lab, "playbooks/site.yml", tls_names=["other.example"])
    nothing_was_touched(done)
    assert "does not cover other.example" in " ".join((done.stdout + done.stderr).split())
