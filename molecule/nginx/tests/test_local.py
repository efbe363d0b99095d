"""What is for this host alone."""

from __future__ import annotations

import json

from tests.outside import https


def test_numbers_are_told_to_this_host_only(lab, app1, live):
    assert "Active connections" in app1.check_output("curl -sf http://127.0.0.1:8081/nginx_status")
    assert json.loads(app1.check_output("curl -sf http://127.0.0.1:8081/metrics"))["path"] == "/metrics"
    assert https(lab, "/metrics").status == 404
    assert https(lab, "/nginx_status").json()["path"] == "/nginx_status"
    # Not by the firewall alone.
    assert app1.check_output("ss -Hltn 'sport = :8081'").split()[3] == "127.0.0.1:8081"


def test_nobody_gets_there_by_saying_to_be_somebody_else(app1, live):
    lie = "curl -s -o /dev/null -w '%{http_code}' -H 'X-Forwarded-For: 198.51.100.1' http://127.0.0.1:8081/nginx_status"
    assert app1.check_output(lie) == "403"
