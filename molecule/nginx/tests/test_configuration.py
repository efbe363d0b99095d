"""The running nginx serves the configuration on disk, and never one that is broken."""

from __future__ import annotations

from tests.outside import https, play

CONVERGE = "molecule/nginx/converge.yml"


def test_a_run_that_died_before_the_reload_is_finished_by_the_next(lab, app1):
    app1.check_output("sed -i 's/Retry-After 10/Retry-After 77/' /etc/nginx/nginx.conf")
    app1.check_output("sed -i 's/in 10 seconds/in 77 seconds/' /usr/local/share/slipway/pages/unavailable.html")
    assert https(lab).headers["retry-after"] == "10"
    done = play(lab, CONVERGE, nginx_retry_after=77)
    assert done.returncode == 0, done.stdout
    assert https(lab).headers["retry-after"] == "77"
    assert play(lab, CONVERGE).returncode == 0
    assert https(lab).headers["retry-after"] == "10"


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
