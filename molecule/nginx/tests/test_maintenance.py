"""The maintenance page: on and off under load, for whom it is, and that it says who closed the site."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.outside import https, play

PLAYBOOK = "playbooks/maintenance.yml"
FILE = "/var/lib/slipway/maintenance.json"


def closing(done) -> str:
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def closed(app1):
    """Closed by hand, which is what the file is for when no playbook can be run."""
    app1.check_output(f"touch {FILE}")
    yield
    app1.check_output(f"rm -f {FILE}")


def test_it_goes_on_and_off_without_a_lost_request_and_says_who_did_it(lab, app1, strangers, live):
    workers = app1.check_output("pgrep -P $(systemctl show -P MainPID nginx)")
    asking = strangers.begin("/")
    on = play(lab, PLAYBOOK, "-e", "maintenance=on", "-e", "because='moving the database'")
    assert on.returncode == 0, on.stdout
    assert "moving the database" in closing(on)
    assert "Still let through" in closing(on)
    state = play(lab, PLAYBOOK)
    assert state.returncode == 0, state.stdout
    assert "is closed for maintenance by" in closing(state)
    assert "moving the database" in closing(state)
    # Operators are let through.
    assert https(lab).status == 200
    # However quick the plays are, many have met it before it goes.
    met = "tail -n 100 /var/log/nginx/access.log | grep -c '\"status\":503'"
    app1.check_output(f"for turn in $(seq 300); do [ $({met}) -gt 20 ] && exit; sleep 0.2; done; exit 1")
    off = play(lab, PLAYBOOK, "-e", "maintenance=off")
    assert off.returncode == 0, off.stdout
    assert "is open again" in closing(off)
    assert strangers.ask("/")[0]["status"] == 200
    answers = strangers.end(asking)
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 503}
    assert statuses[0] == statuses[-1] == 200
    assert {later for status, later, _ in answers if status == 503} == {"600"}
    assert statuses.count(503) > 20
    # From open to closed to open, and not a moment of anything else between.
    changes = sum(1 for one, other in itertools.pairwise(statuses) if one != other)
    assert changes == 2
    assert app1.check_output("pgrep -P $(systemctl show -P MainPID nginx)") == workers
    history = [
        json.loads(line) for line in app1.check_output("tail -n 2 /var/log/slipway/maintenance.jsonl").splitlines()
    ]
    assert [entry["state"] for entry in history] == ["on", "off"]
    assert history[0]["because"] == "moving the database"
    assert "@" in history[0]["by"]


def test_strangers_see_the_page_programs_json_and_monitoring_the_app(strangers, live, closed):
    page = strangers.ask("/books/")[0]
    assert page["status"] == 503
    assert page["headers"]["retry-after"] == "600"
    assert page["headers"]["cache-control"] == "no-store"
    assert "We are working on the site." in page["text"]
    program = strangers.ask("/books/", headers={"Accept": "application/json"})[0]
    assert program["status"] == 503
    assert json.loads(program["text"])["title"] == "Under maintenance"
    assert json.loads(strangers.ask("/api/books/")[0]["text"])["retry_after"] == 600
    assert strangers.ask("/", method="POST", body="x=1")[0]["status"] == 503
    assert strangers.ask("/static/robots.txt")[0]["status"] == 503
    for path in ("/readyz", "/healthz"):
        assert strangers.ask(path)[0]["status"] == 200
    assert strangers.ask("/readyzz")[0]["status"] == 503


def test_it_stays_closed_when_nginx_or_the_host_starts_anew(app1, strangers, live, closed):
    app1.check_output("systemctl restart nginx")
    assert strangers.ask("/")[0]["status"] == 503
    # On a disk, and not in what is made anew at each boot.
    assert app1.check_output(f"findmnt -n -o FSTYPE --target {FILE}") != "tmpfs"


def test_without_a_reason_nothing_is_closed(lab, app1):
    done = play(lab, PLAYBOOK, "-e", "maintenance=on")
    assert done.returncode != 0
    assert "say why" in closing(done)
    assert not app1.file(FILE).exists
    wrong = play(lab, PLAYBOOK, "-e", "maintenance=maybe")
    assert "may be on or off" in closing(wrong)
