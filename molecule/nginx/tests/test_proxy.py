"""What reaches the app, and how a renamed link moves requests without a reload."""

from __future__ import annotations

import concurrent.futures
import json
import time

from tests.outside import access_log, https

PATH = "/books/?token=s3cret"


def workers(app1):
    return set(app1.check_output("pgrep -P $(systemctl show -P MainPID nginx)").split())


def test_a_renamed_link_takes_over_with_the_next_request_and_without_a_reload(lab, app1, live):
    before = workers(app1)
    assert https(lab).json()["release"] == "a"
    live("b")
    assert https(lab).json()["release"] == "b"
    live("a")
    assert https(lab).json()["release"] == "a"
    assert workers(app1) == before


def test_a_request_in_flight_ends_where_it_began(lab, live):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(https, lab, "/slow")
        time.sleep(1)
        live("b")
        assert https(lab).json()["release"] == "b"
        assert slow.result().json()["release"] == "a"


def test_the_app_learns_who_asked_and_cannot_be_lied_to(lab, app1, live):
    lies = {
        "X-Forwarded-For": "198.51.100.7",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=198.51.100.7",
        "X-Real-IP": "198.51.100.7",
        "Proxy": "http://evil.example",
    }
    seen = {name.lower(): value for name, value in https(lab, headers=lies).json()["headers"].items()}
    assert seen["x-forwarded-proto"] == "https"
    assert seen["x-forwarded-for"] == seen["x-real-ip"] != "198.51.100.7"
    assert seen["host"] == lab["edge_name"]
    assert not {"x-forwarded-host", "forwarded", "proxy"} & set(seen)
    assert len(seen["x-request-id"]) == 32


def test_the_port_that_the_browser_used_reaches_the_app(lab, live):
    seen = https(lab, headers={"Host": f"{lab['edge_name']}:8443"}).json()["headers"]
    assert seen["Host"] == f"{lab['edge_name']}:8443"


def test_a_request_is_never_sent_twice(lab, app1, live):
    app1.check_output("rm -f /run/app/test-a/requests")
    for method in ("GET", "POST"):
        assert https(lab, "/cut", method=method, body=b"x" if method == "POST" else None).status == 503
    assert app1.check_output("cat /run/app/test-a/requests").split() == ["/cut", "/cut"]


def test_what_the_app_answers_passes_as_it_is(lab, live):
    answer = https(lab, "/own-502")
    assert answer.status == 502
    assert answer.json()["release"] == "a"


def test_bodies_up_to_the_limit_reach_the_app_and_larger_ones_do_not(lab, live):
    limit = 10 * 1024 * 1024
    assert https(lab, "/upload", method="POST", body=b"x" * limit).json()["body"] == limit
    # nginx answers by the length alone.
    assert https(lab, "/upload", method="POST", headers={"Content-Length": str(limit + 1)}).status == 413


def test_a_request_is_logged_without_its_query(lab, app1, live):
    https(lab, PATH, headers={"User-Agent": 'a "quoted" agent'})
    line = access_log(app1, "grep quoted").splitlines()[-1]
    assert "s3cret" not in line
    entry = json.loads(line)
    assert entry["uri"] == "/books/"
    assert (entry["status"], entry["upstream_status"], entry["release"]) == (200, "200", "a")
    assert (entry["method"], entry["host"]) == ("GET", lab["edge_name"])
    assert entry["user_agent"] == 'a "quoted" agent'
    assert len(entry["request_id"]) == 32
    assert float(entry["upstream_time"]) >= 0
    assert entry["request_time"] >= 0
