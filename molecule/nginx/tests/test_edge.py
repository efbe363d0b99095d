"""The edge as a client sees it: names, TLS, redirects, and what it says while no release serves."""

from __future__ import annotations

import http.client
import socket
import ssl

import pytest

from tests.outside import http_get, https, tls

V = ssl.TLSVersion


@pytest.fixture(params=["ipv4", "ipv6"])
def address(request, lab):
    return lab["hosts"]["app1"][request.param]


def test_plain_http_leads_to_https(lab, address):
    answer = http_get(address, "/books/?page=2", Host=lab["edge_name"])
    assert answer.status == 301
    assert answer.headers["location"] == f"https://{lab['edge_name']}/books/?page=2"


def test_a_name_that_is_not_ours_gets_no_answer(lab, address):
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        http_get(address, "/", Host="somebody.example")


def test_a_handshake_for_a_name_that_is_not_ours_is_refused(lab, address):
    with (
        pytest.raises(ssl.SSLError, match=r"(?i)unrecognized[_ ]name"),
        tls(address, 443, "somebody.example", lab["ca"]),
    ):
        pass


def test_a_connection_for_our_name_is_for_no_other(lab, live):
    """Browsers that share one connection between names are told to open another."""
    answer = https(lab, "/", headers={"Host": "somebody.example"})
    assert answer.status == 421
    assert "x-release" not in answer.headers


def test_http_2_is_spoken(lab, address):
    trust = ssl.create_default_context(cafile=lab["ca"])
    trust.set_alpn_protocols(["h2", "http/1.1"])
    plain = socket.create_connection((address, 443), timeout=10)
    with trust.wrap_socket(plain, server_hostname=lab["edge_name"]) as connection:
        assert connection.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("version", [V.TLSv1_2, V.TLSv1_3])
def test_good_versions_of_tls_are_spoken(lab, address, version):
    with tls(address, 443, lab["edge_name"], lab["ca"], version) as connection:
        assert connection.version() == version.name.replace("_", ".")


@pytest.mark.parametrize("version", [V.TLSv1, V.TLSv1_1])
def test_old_versions_of_tls_are_refused(lab, version):
    with pytest.raises(ssl.SSLError), tls(lab["edge_address"], 443, lab["edge_name"], lab["ca"], version):
        pass


def test_weak_ciphers_are_refused(lab):
    weak = ssl.create_default_context(cafile=lab["ca"])
    weak.maximum_version = V.TLSv1_2
    weak.set_ciphers("AES128-SHA:AES256-SHA:ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA")
    connection = http.client.HTTPSConnection(lab["edge_address"], 443, context=weak, timeout=10)
    with pytest.raises(ssl.SSLError):
        connection.connect()


@pytest.mark.parametrize(("wished", "given"), [("AES256", "AES128-GCM-SHA256"), ("CHACHA20", "CHACHA20-POLY1305")])
def test_the_edge_chooses_the_cipher_but_for_clients_without_aes_in_hardware(lab, wished, given):
    client = ssl.create_default_context(cafile=lab["ca"])
    client.maximum_version = V.TLSv1_2
    client.set_ciphers(f"ECDHE+{wished}:ECDHE+AESGCM:ECDHE+CHACHA20")
    plain = socket.create_connection((lab["edge_address"], 443), timeout=10)
    with client.wrap_socket(plain, server_hostname=lab["edge_name"]) as connection:
        assert connection.cipher()[0].endswith(given)


def test_without_a_release_clients_are_told_when_to_come_back(lab):
    answer = https(lab, "/")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "10"
    assert answer.headers["cache-control"] == "no-store"
    assert b"Back in a moment" in answer.body
    assert https(lab, "/", method="POST", body=b"x=1").status == 503


def test_the_page_itself_has_no_address(lab, live):
    assert https(lab, "/slipway/pages/unavailable.html").status == 404


def test_browsers_are_told_to_insist_on_https(lab, live):
    for path in ("/", "/static/nothing.css"):
        assert https(lab, path).headers["strict-transport-security"] == "max-age=15768000; includeSubDomains; preload"


def test_the_server_does_not_say_its_version(lab):
    assert https(lab, "/").headers["server"] == "nginx"


def test_nginx_comes_up_with_the_host_and_again_when_it_dies(app1):
    service = app1.service("nginx")
    assert service.is_enabled
    before = app1.check_output("systemctl show -P MainPID nginx")
    app1.check_output(f"kill -9 {before}")
    app1.check_output(
        f"timeout 10 sh -c 'until systemctl -q is-active nginx"
        f" && test $(systemctl show -P MainPID nginx) -ne {before}; do sleep 0.2; done'"
    )
