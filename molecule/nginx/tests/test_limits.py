"""Who asks too often is told to wait; who does not is not. Each test comes from addresses of its own."""

from __future__ import annotations

import random

import pytest

from tests.outside import access_log, https


def somebody() -> str:
    """An address that nobody has (RFC 2544), another one in each run: nginx remembers who asked a minute ago."""
    return f"198.18.{random.randrange(256)}.{random.randrange(1, 255)}"


def test_attempts_to_log_in_are_counted_and_looking_at_the_form_is_not(strangers, live):
    client = somebody()
    looks = strangers.ask("/admin/login/", 30, client=client)
    assert {answer["status"] for answer in looks} == {200}
    tries = strangers.ask("/admin/login/", 15, client=client, method="POST", body="password=x")
    statuses = [answer["status"] for answer in tries]
    # One, and a burst of ten.
    assert statuses[:11] == [200] * 11
    assert statuses[12:] == [429] * 3
    refused = tries[-1]
    assert refused["headers"]["retry-after"] == "6"
    assert refused["headers"]["cache-control"] == "no-store"
    assert "Too many requests" in refused["text"]
    # Somebody else is not kept waiting, nor are other pages.
    assert strangers.ask("/admin/login/", client=somebody(), method="POST", body="x")[0]["status"] == 200
    assert strangers.ask("/", client=client)[0]["status"] == 200


@pytest.mark.parametrize("path", ["//admin//login/", "/admin/%6cogin/", "/x/../admin/login/", "/admin/login/?next=/"])
def test_another_way_to_write_the_path_is_counted_too(strangers, live, path):
    tries = strangers.ask(path, 14, client=somebody(), method="POST", body="x")
    assert tries[-1]["status"] == 429


def test_the_api_has_a_limit_of_its_own_and_says_so_in_json(strangers, live):
    answers = strangers.ask("/api/books/", 250, together=20, client=somebody())
    refused = [answer for answer in answers if answer["status"] == 429]
    assert len([answer for answer in answers if answer["status"] == 200]) >= 101
    assert refused
    assert refused[0]["headers"]["content-type"].startswith("application/json")
    assert refused[0]["headers"]["retry-after"] == "1"


def test_a_network_of_ipv6_is_one_client(strangers, live):
    net = f"2001:db8:{random.randrange(1, 65536):x}"
    first = strangers.ask("/admin/login/", 13, client=f"{net}:2::5", method="POST", body="x")
    assert first[-1]["status"] == 429
    other = strangers.ask("/admin/login/", 1, client=f"{net}:2:ffff::9", method="POST", body="x")
    assert other[0]["status"] == 429
    assert strangers.ask("/admin/login/", 1, client=f"{net}:3::5", method="POST", body="x")[0]["status"] == 200


def test_who_is_exempt_is_not_counted(lab, live):
    assert {https(lab, "/admin/login/", method="POST", body=b"x").status for _ in range(20)} == {200}


def test_an_address_is_believed_of_a_load_balancer_and_of_nobody_else(lab, strangers, live):
    headers = strangers.ask("/", client="203.0.113.9")[0]
    assert '"X-Forwarded-For": "203.0.113.9"' in headers["text"]
    assert '"X-Real-IP": "203.0.113.9"' in headers["text"]
    # The last address that is not a balancer's own is the client: what stands before it anybody can write.
    chain = strangers.ask("/", client="192.0.2.1, 203.0.113.10")[0]
    assert '"X-Forwarded-For": "203.0.113.10"' in chain["text"]
    told = https(lab, "/", headers={"X-Forwarded-For": "203.0.113.9"}).json()["headers"]["X-Forwarded-For"]
    assert told != "203.0.113.9"


def test_a_limited_request_is_logged_as_what_it_was(lab, app1, strangers, live):
    client = somebody()
    https(lab, "/", headers={"User-Agent": f"served/{client}"})
    strangers.ask("/admin/login/?token=s3cret", 13, client=client, method="POST", body="x")
    # Each of nginx's workers writes its own lines: they stand in no order of time.
    line = access_log(app1, f'grep \'"client":"{client}".*"limit":"REJECTED"\'').splitlines()[-1]
    assert '"method":"POST"' in line
    assert '"peer":"127.0.0.1"' in line
    # And where fail2ban looks, which has nobody who was served.
    refused = app1.check_output("cat /var/log/nginx/refused.log")
    assert line in refused.splitlines()
    assert f"served/{client}" in access_log(app1)
    assert f"served/{client}" not in refused
    assert app1.run("grep -r s3cret /var/log/nginx/").rc == 1
