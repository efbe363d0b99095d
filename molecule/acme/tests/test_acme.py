"""The life of a certificate, from a host without one, against a real ACME server. The tests are one story, in order."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from benchmarks.loadgen.plan import Plan
from benchmarks.loadgen.process import Load
from tests.acme import (
    ASTRAY,
    CONVERGE,
    HASHED,
    NAME,
    SECOND,
    WIPE,
    is_trusted,
    shown,
    shows_another,
    start,
    told,
)
from tests.outside import changes, http_get, https, play


def names(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(found.get_values_for_type(x509.DNSName))


def asked(host: Any, path: str) -> str:
    """The head of an answer, whoever vouches for the certificate."""
    ask = f"curl -ksS -D - -o /dev/null --resolve {NAME}:443:127.0.0.1 https://{NAME}{path}"
    return str(host.check_output(ask)).lower()


def test_without_a_certificate_and_without_the_server_a_stand_in_serves_and_the_run_says_why(lab, app1, acme, site):
    app1.check_output(WIPE)
    done = site.apply()
    assert done.returncode != 0
    sentence = f"The ACME server {acme.directory} gave no certificate for {NAME}. Its reason: it cannot be reached"
    assert sentence in told(done)

    certificate = shown(lab)
    assert certificate.issuer == certificate.subject
    assert names(certificate) == {NAME}
    assert " 200" in asked(app1, HASHED)
    assert "strict-transport-security" not in asked(app1, HASHED)
    # Nor with what is nginx's own.
    assert "strict-transport-security" not in asked(app1, "/")
    assert http_get(lab["edge_address"], "/books/", Host=NAME).status == 301

    fine, said = start(app1, "slipway-tls-check.service")
    assert not fine
    assert "The edge shows a stand-in that no browser trusts" in said
    fine, said = start(app1, "certbot.service")
    assert not fine
    assert "it cannot be reached" in said


def test_it_is_obtained_once_the_server_answers_and_rehearsed_before(lab, app1, acme, site):
    acme.start()
    done = site.apply()
    assert done.returncode == 0, done.stdout[-3000:]
    # One by the rehearsal, one for us.
    assert acme.issued() == 2
    assert not app1.file("/var/lib/slipway/acme/rehearsal/config/live").exists
    assert app1.check_output("ls /etc/letsencrypt/live").split() == ["README", NAME]
    assert app1.file("/etc/slipway/tls/live/privkey.pem").mode == 0o600


def test_it_is_trusted_and_browsers_are_told_to_insist(lab, app1, root):
    assert is_trusted(lab, root)
    assert isinstance(shown(lab).public_key(), ec.EllipticCurvePublicKey)
    answer = https({**lab, "ca": root}, HASHED)
    assert answer.status == 200
    assert answer.headers["strict-transport-security"].startswith("max-age=15768000")
    fine, said = start(app1, "slipway-tls-check.service")
    assert fine, said
    assert f"The edge shows a certificate for {NAME}".lower() in said.lower()


@pytest.mark.full
def test_a_second_run_changes_nothing(app1, acme, site):
    before = acme.issued()
    done = site.apply()
    assert done.returncode == 0, done.stdout[-3000:]
    assert changes(done.stdout) == {"app1": 0}
    assert acme.issued() == before


def test_the_timer_is_the_packages_own_every_12_hours_with_jitter(app1):
    assert app1.service("certbot.timer").is_enabled
    found = app1.check_output("systemctl cat certbot.timer; systemctl list-timers --all --no-legend")
    assert "RandomizedDelaySec=39600" in found
    assert "FixedRandomDelay=true" in found
    assert "OnCalendar=*-*-* 00,12:00:00" in app1.check_output("systemctl show -p TimersCalendar certbot.timer")
    assert "slipway-tls-check.timer" in found
    assert "slipway-tls-renew" not in found


def test_a_renewal_under_load_loses_no_request(lab, app1, root):
    before = shown(lab)
    plan = Plan(
        address=lab["edge_address"], host=NAME, ca_file=root, run_id="renewal", rate=150, new_share=0.5, slow_share=0.0,
        pages=(HASHED,), follow_static=False,
    )  # fmt: skip
    with Load(plan) as load:
        load.mark("renewal")
        fine, said = start(app1, "certbot.service")
        load.mark("afterwards")
        app1.check_output("sleep 2")
        result = load.stop()
    assert fine, said
    assert shows_another(lab, before)
    total = result["total"]
    print(f"{total['sent']} requests, {total['lost']} lost, {total['retried']} sent again")
    assert total["sent"] > 300
    assert total["lost"] == 0, total["examples"]


def test_what_is_not_due_is_not_renewed_and_nginx_is_left_alone(lab, app1, acme):
    """Only what changed makes nginx reload."""
    conf = f"/etc/letsencrypt/renewal/{NAME}.conf"
    app1.check_output(f"sed -i '1i renew_before_expiry = 2 days' {conf}")
    workers = "pgrep -P $(systemctl show -P MainPID nginx)"
    before, issued = app1.check_output(workers).split(), acme.issued()
    fine, said = start(app1, "certbot.service")
    assert fine, said
    assert acme.issued() == issued
    # Those of before the last reload may have ended meanwhile.
    assert set(app1.check_output(workers).split()) <= set(before)
    app1.check_output(f"sed -i 1d {conf}")


def test_with_the_server_down_the_old_one_serves_and_the_unit_fails_with_a_sentence(lab, app1, acme, root):
    before = shown(lab)
    acme.go_away(app1)
    try:
        fine, said = start(app1, "certbot.service")
    finally:
        acme.come_back(app1)
    assert not fine
    assert (
        f"The certificate for {NAME} could not be renewed. The ACME server {acme.directory}: it cannot be reached"
        in said
    )
    assert app1.check_output("systemctl show -P Result certbot.service") == "exit-code"
    assert shown(lab) == before
    assert is_trusted(lab, root)


def test_a_configuration_that_nginx_refuses_keeps_the_old_certificate_and_is_loud(lab, app1):
    before, link = shown(lab), app1.check_output("readlink /etc/slipway/tls/live")
    app1.check_output("cp /etc/nginx/nginx.conf /run/nginx.conf.kept && echo 'broken' >>/etc/nginx/nginx.conf")
    try:
        fine, said = start(app1, "certbot.service")
    finally:
        app1.check_output("cp -p /run/nginx.conf.kept /etc/nginx/nginx.conf")
    assert not fine
    assert "is refused by nginx -t; what was served before is served on" in said
    assert app1.check_output("readlink /etc/slipway/tls/live") == link
    assert shown(lab) == before
    # The next one finishes it.
    fine, said = start(app1, "certbot.service")
    assert fine, said
    assert shows_another(lab, before)


def test_a_domain_added_later_joins_the_certificate_and_both_keys_are_shown(lab, app1, site, root):
    done = site.apply(tls_names=[NAME, SECOND], nginx_aliases=[SECOND], tls_key_types=["ecdsa", "rsa"])
    assert done.returncode == 0, done.stdout[-3000:]
    for name in (NAME, SECOND):
        assert is_trusted(lab, root, name)
        one, other = shown(lab, name, "ECDHE+ECDSA"), shown(lab, name, "ECDHE+aRSA")
        assert isinstance(one.public_key(), ec.EllipticCurvePublicKey)
        assert isinstance(other.public_key(), rsa.RSAPublicKey)
        assert names(one) == names(other) == {NAME, SECOND}
    assert app1.check_output("ls /etc/letsencrypt/live").split() == ["README", NAME, f"{NAME}-rsa"]
    fine, said = start(app1, "slipway-tls-check.service")
    assert fine, said


def test_a_domain_that_does_not_validate_is_named_and_the_old_certificate_serves(lab, app1, acme, site, root):
    before, issued = shown(lab), acme.issued()
    done = site.apply(tls_names=[NAME, SECOND, ASTRAY], nginx_aliases=[SECOND], tls_key_types=["ecdsa", "rsa"])
    assert done.returncode != 0
    assert f"{ASTRAY}: " in told(done)
    assert "onnection refused" in told(done)
    assert "What was served before is served on" in told(done)
    assert acme.issued() == issued
    assert shown(lab) == before
    # What is there is renewed all the same, and the timer says what is missing.
    fine, said = start(app1, "certbot.service")
    assert not fine
    assert ASTRAY in said
    assert shows_another(lab, before)
    assert is_trusted(lab, root, SECOND)


def test_back_to_one_key_and_the_other_is_no_longer_renewed(lab, app1, site):
    """And what a host has from before there was `live` goes, for nginx names it no more."""
    former = "/etc/slipway/tls/fullchain.pem /etc/slipway/tls/privkey.pem"
    app1.check_output("cp -L /etc/slipway/tls/live/fullchain.pem /etc/slipway/tls/live/privkey.pem /etc/slipway/tls/")
    peer = "127.0.0.1:8099"
    done = site.apply(tls_acme_peers=[peer], tls_names=[NAME, SECOND], nginx_aliases=[SECOND])
    assert done.returncode == 0, done.stdout[-3000:]
    assert app1.check_output("ls /etc/letsencrypt/live").split() == ["README", NAME]
    with pytest.raises(ssl.SSLError):
        shown(lab, NAME, "ECDHE+aRSA")
    assert app1.run(f"ls {former}").stdout == ""


def test_a_challenge_that_another_edge_has_is_answered_by_this_one(lab, app1, acme):
    """The run before has named an address of this host as the other edge. The server knows of this one alone."""
    path = "/.well-known/acme-challenge/token-of-the-other"
    app1.check_output(f"mkdir -p /run/peer/.well-known/acme-challenge && echo theirs >/run/peer{path}")
    app1.check_output("systemd-run -q --unit=test-peer python3 -m http.server -b 127.0.0.1 -d /run/peer 8099")
    app1.check_output("timeout 10 sh -c 'until curl -so /dev/null http://127.0.0.1:8099/; do sleep 0.1; done'")
    try:
        assert http_get(lab["edge_address"], path, Host=NAME).body == b"theirs\n"
        assert http_get(lab["edge_address"], f"{path}x", Host=NAME).status == 404
        issued = acme.issued()
        places = " ".join(f"--{part}-dir /run/peer.state/{part}" for part in ("config", "work", "logs"))
        app1.check_output(
            "REQUESTS_CA_BUNDLE=/etc/slipway/tls/acme-ca.pem certbot certonly --webroot -w /run/peer --non-interactive"
            f" --agree-tos -m ops@bookshop.example --no-directory-hooks --server {acme.directory} -d {NAME} {places}"
        )
        assert acme.issued() == issued + 1
        # A peer that asks is not sent on.
        assert http_get(lab["edge_address"], path, Host=NAME, **{"X-Slipway-Challenge": "1"}).status == 404
        beside = http_get(lab["edge_address"], "/.well-known/acme-challenge/../../etc/passwd", Host=NAME)
        assert beside.status in (301, 400)
    finally:
        app1.check_output("systemctl stop test-peer && rm -rf /run/peer /run/peer.state")


def test_the_daily_check_looks_at_the_end(app1):
    settings = "/etc/slipway/tls/settings.json"
    late = f'sed -i \'s/"warn_days": 21/"warn_days": 40/\' {settings}'
    app1.check_output(f"cp -a {settings} /run/settings.kept && {late}")
    try:
        fine, said = start(app1, "slipway-tls-check.service")
    finally:
        app1.check_output(f"cp -a /run/settings.kept {settings}")
    assert not fine
    assert f"The certificate for {NAME} ends on" in said
    assert "journalctl -u certbot.service" in said


def test_the_daily_check_looks_at_what_is_really_shown(app1):
    """A certificate that is there, and that nginx was never told of."""
    script = (
        "rm -rf /run/other && cp -rL /etc/slipway/tls/live /run/other && openssl req -x509 -nodes -newkey ec"
        f" -pkeyopt ec_paramgen_curve:P-256 -days 90 -subj /CN={NAME} -keyout /run/other/privkey.pem"
        f" -addext subjectAltName=DNS:{NAME},DNS:{SECOND} -out /run/other/fullchain.pem 2>/dev/null"
        " && readlink /etc/slipway/tls/live >/run/link && ln -sfn /run/other /etc/slipway/tls/live"
    )
    app1.check_output(script)
    try:
        fine, said = start(app1, "slipway-tls-check.service")
    finally:
        app1.check_output("ln -sfn $(cat /run/link) /etc/slipway/tls/live")
    assert not fine
    assert "another certificate than the one here" in said


def test_what_cannot_work_is_refused_before_anything_changes(app1, site):
    before = app1.check_output("sha256sum /etc/slipway/tls/settings.json")
    done = site.apply(tls_names=["*.bookshop.localhost"])
    assert done.returncode != 0
    assert "tls_names has *.bookshop.localhost: a wildcard is proved by DNS" in told(done)
    assert changes(done.stdout) == {"app1": 0}
    assert app1.check_output("sha256sum /etc/slipway/tls/settings.json") == before


def test_a_self_signed_one_takes_over_without_hsts_and_with_a_timer_of_its_own(lab, app1):
    done = play(lab, CONVERGE, tls_provider="selfsigned", tls_names=[NAME, SECOND], nginx_aliases=[SECOND])
    assert done.returncode == 0, done.stdout[-3000:]
    certificate = shown(lab)
    assert certificate.issuer == certificate.subject
    assert names(certificate) == {NAME, SECOND}
    assert "strict-transport-security" not in asked(app1, HASHED)
    assert app1.service("slipway-tls-renew.timer").is_running
    assert not app1.service("certbot.timer").is_running
    for unit in ("slipway-tls-renew.service", "slipway-tls-check.service"):
        fine, said = start(app1, unit)
        assert fine, said
    assert shown(lab) == certificate
    # One that is not as it shall be is made anew, in the unit's own sandbox.
    app1.check_output('sed -i \'s/"selfsigned_days": 90/"selfsigned_days": 30/\' /etc/slipway/tls/settings.json')
    fine, said = start(app1, "slipway-tls-renew.service")
    assert fine, said
    assert shows_another(lab, certificate)


def test_a_provided_one_takes_over_and_the_word_of_its_responder_is_stapled(lab, app1, responder):
    done = play(lab, CONVERGE, tls_certificate=responder["chain"], tls_private_key=responder["key"])
    assert done.returncode == 0, done.stdout[-3000:]
    assert not app1.file("/etc/systemd/system/certbot.service.d/10-slipway.conf").exists
    assert app1.run("systemctl is-active slipway-tls-renew.timer certbot.timer").stdout.split() == ["inactive"] * 2
    assert names(shown(lab)) == {NAME}
    # nginx asks the responder when somebody wants to know, and has the answer for those after.
    ask = f"openssl s_client -connect 127.0.0.1:443 -servername {NAME} -status </dev/null 2>&1"
    app1.check_output(
        f"timeout 15 sh -c 'until {ask} | grep -q \"OCSP Response Status: successful\"; do sleep 0.3; done'"
    )
    assert "Cert Status: good" in app1.check_output(ask)
