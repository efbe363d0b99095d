"""What every answer carries, and that the app's own word wins."""

from __future__ import annotations

import pytest

from tests.outside import https

OURS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "strict-origin-when-cross-origin",
    "cross-origin-opener-policy": "same-origin",
    "strict-transport-security": "max-age=15768000; includeSubDomains; preload",
}


@pytest.mark.parametrize(
    "path", ["/", "/static/robots.txt", "/static/css/site.0123456789ab.css", "/static/none", "/own-503"]
)
def test_every_answer_has_the_headers_that_protect_browsers(lab, live, statics, path):
    headers = https(lab, path).headers
    assert {name: headers.get(name) for name in OURS} == OURS
    assert "default-src 'self'" in headers["content-security-policy"]
    assert len(headers["x-request-id"]) == 32


def test_a_header_that_the_app_sends_wins_and_is_sent_once(lab, live):
    connection_headers = https(lab, "/own-headers").pairs
    found = {name: [v for n, v in connection_headers if n == name] for name, _ in connection_headers}
    assert found["content-security-policy"] == ["default-src 'none'"]
    assert found["x-frame-options"] == ["SAMEORIGIN"]
    assert found["cache-control"] == ["private"]
    assert found["x-request-id"] == ["mine"]
    assert found["strict-transport-security"] == [OURS["strict-transport-security"]]
    # What it does not speak of is still the edge's.
    assert found["x-content-type-options"] == ["nosniff"]


def test_the_edges_own_page_may_show_its_own_style_and_nothing_else(lab):
    answer = https(lab, "/")
    assert answer.status == 503
    assert answer.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert answer.headers["x-frame-options"] == "DENY"


def test_what_the_app_says_of_when_to_come_back_is_left_alone(lab, live):
    answer = https(lab, "/own-503")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert "retry-after" not in https(lab, "/own-502").headers


def test_programs_are_told_in_json(lab):
    for path, accept in (("/", "application/json"), ("/api/books/", "*/*")):
        answer = https(lab, path, headers={"Accept": accept})
        assert answer.status == 503
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json()["title"] == "Back in a moment"
    browser = "text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8"
    assert https(lab, "/api/books/", headers={"Accept": browser}).headers["content-type"].startswith("text/html")


def test_answers_travel_compressed(lab, live):
    for encoding in ("gzip", "br"):
        answer = https(lab, "/long", headers={"Accept-Encoding": encoding})
        assert answer.headers["content-encoding"] == encoding
        assert "Accept-Encoding" in answer.headers["vary"]
        assert len(answer.body) < 1000
    assert "content-encoding" not in https(lab, "/long").headers
