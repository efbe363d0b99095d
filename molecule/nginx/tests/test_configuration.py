"""The running nginx serves the configuration on disk, and never one that is broken."""

from __future__ import annotations

import pytest

from tests.outside import access_log, https, play

CONVERGE = "molecule/nginx/converge.yml"


@pytest.mark.full
def test_a_run_that_died_before_the_reload_is_finished_by_the_next(lab, app1):
    app1.check_output("sed -i 's/503:502\" 10;/503:502\" 77;/' /etc/nginx/nginx.conf")
    app1.check_output("sed -i 's/in 10 seconds/in 77 seconds/' /usr/local/share/slipway/pages/unavailable.html")
    assert https(lab).headers["retry-after"] == "10"
    done = play(lab, CONVERGE, nginx_retry_after=77)
    assert done.returncode == 0, done.stdout
    assert https(lab).headers["retry-after"] == "77"
    assert play(lab, CONVERGE).returncode == 0
    assert https(lab).headers["retry-after"] == "10"


@pytest.mark.full
def test_a_worker_that_cannot_reach_the_sockets_is_replaced(lab, app1, live):
    app1.check_output("gpasswd -d www-data app-edge && systemctl reload nginx && sleep 1")
    assert https(lab).status == 503
    assert play(lab, CONVERGE).returncode == 0
    assert https(lab).status == 200


def test_a_configuration_that_nginx_refuses_never_replaces_the_good_one(lab, app1):
    before = app1.check_output("sha256sum /etc/nginx/nginx.conf")
    done = play(lab, CONVERGE, nginx_tls_ciphers=["NO-SUCH-CIPHER"])
    assert done.returncode != 0
    assert "nginx -t" in done.stdout
    assert app1.check_output("sha256sum /etc/nginx/nginx.conf") == before
    assert https(lab).status == 503


def test_a_new_certificate_is_served_by_the_nginx_that_runs(lab, app1):
    """The role tls reloads what reads it."""
    pids = app1.check_output("pgrep -P $(systemctl show -P MainPID nginx)").split()
    app1.check_output("sh -c 'printf \"\\n\" >>/etc/slipway/tls/live/fullchain.pem'")
    assert play(lab, "molecule/tls/converge.yml").returncode == 0
    assert not set(pids) & set(app1.check_output("pgrep -P $(systemctl show -P MainPID nginx)").split())
    assert https(lab).status == 503


SNIPPETS = [
    {"name": "old-address", "place": "server", "content": "location = /old { return 301 /new; }"},
    {"name": "weekday", "place": "http", "content": "map $uri $snippet_said { default yes; }"},
    {"name": "to-the-app", "place": "location", "content": "proxy_set_header X-Snippet $snippet_said;"},
]


def test_what_the_operators_choose_is_what_is_served(lab, app1, strangers, live):
    done = play(
        lab,
        CONVERGE,
        nginx_snippets=SNIPPETS,
        nginx_log_query="scrubbed",
        nginx_client_max_body_sizes={"/up/": "12m"},
        nginx_connections_per_client=5,
        nginx_compress_answers=False,
    )
    assert done.returncode == 0, done.stdout
    assert "content-encoding" not in https(lab, "/long", headers={"Accept-Encoding": "gzip, br"}).headers
    assert https(lab, "/old").headers["location"].endswith("/new")
    headers = https(lab, "/").json()["headers"]
    assert headers["X-Snippet"] == "yes"
    # It stands beside what the edge itself says, and in place of nothing.
    assert headers["X-Forwarded-Proto"] == "https"
    statuses = [answer["status"] for answer in strangers.ask("/slow", 12, together=12)]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 5
    body = b"x" * (11 * 1024 * 1024)
    assert https(lab, "/up/x", method="POST", body=body).json()["body"] == len(body)
    for path in ("/s?page=2&token=s3cret", "/s?Api_Key=s3cret&x=1&password=s3cret", "/s?%74oken=s3cret"):
        assert https(lab, path).status == 200
    log = access_log(app1, 'grep \'"uri":"/s"\'')
    assert "s3cret" not in log
    assert '"query":"page=2&token=[hidden]"' in log
    assert '"query":"Api_Key=[hidden]&x=1&password=[hidden]"' in log


def test_a_broken_snippet_changes_nothing_and_is_named(lab, app1, live):
    seen = "sha256sum /etc/nginx/nginx.conf; pgrep -P $(systemctl show -P MainPID nginx)"
    before = app1.check_output(seen)
    for content, why in (("bogus on;", 'unknown directive "bogus"'), ("}", 'unexpected "}"')):
        broken = {"name": "broken", "place": "server", "content": f"# mine\n{content}"}
        done = play(lab, CONVERGE, nginx_snippets=[*SNIPPETS, broken])
        said = " ".join(done.stdout.split())
        assert done.returncode != 0
        assert "nginx refuses the snippet broken (place server, nginx_snippets)" in said
        assert "in its line 2" in said
        assert why in said
        assert app1.check_output(seen) == before
        assert https(lab, "/old").status == 301


def test_what_is_no_longer_wanted_goes(lab, app1, live):
    done = play(lab, CONVERGE)
    assert done.returncode == 0, done.stdout
    assert https(lab, "/old").json()["path"] == "/old"
    assert app1.run("ls -A /etc/slipway/nginx").stdout == ""


def test_what_a_system_cannot_have_is_refused_before_anything_changes(lab, app1):
    wrong = {
        "nginx_security_headers": {"Content-Security-Policy": 'default-src "self"'},
        "nginx_client_max_body_sizes": {"uploads": "1x"},
        "nginx_trusted_proxies": ["10.0.0.1/8"],
        "nginx_snippets": [{"name": "a/b", "place": "http", "content": " "}],
        "nginx_maintenance_logo": "/nowhere.svg",
    }
    done = play(lab, CONVERGE, **wrong)
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    for sentence in (
        "nginx_security_headers has a value for Content-Security-Policy",
        "nginx_client_max_body_sizes has 'uploads', which is no path below /",
        "nginx_trusted_proxies has '10.0.0.1/8', which is no network",
        "nginx_snippets has a name, 'a/b', that is not made of letters, digits and hyphens",
        "nginx_maintenance_logo names /nowhere.svg, which is no file on this machine",
    ):
        assert sentence in said
