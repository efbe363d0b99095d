"""Redis answers over verified TLS, on the private network, to the app alone, which cannot administer it."""

from __future__ import annotations

import socket
import ssl

import pytest

from tests.outside import secrets, tls

PORT = 6379
V = ssl.TLSVersion


@pytest.fixture(params=["ipv4", "ipv6"])
def address(request, lab):
    return lab["hosts"]["data1"][request.param]


def say(connection: socket.socket, *words: str) -> str:
    message = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    connection.sendall(message.encode())
    return connection.recv(65536).decode()


@pytest.fixture
def app(lab):
    """The app's connection, logged in."""
    with tls(lab["hosts"]["data1"]["ipv4"], PORT, "data1", lab["ca"]) as connection:
        assert say(connection, "AUTH", "app", secrets(lab)["redis_app_password"]).startswith("+OK")
        yield connection


def test_without_tls_there_is_no_answer(address):
    with socket.create_connection((address, PORT), timeout=10) as connection:
        connection.sendall(b"PING\r\n")
        try:
            said = connection.recv(100)
        except ConnectionResetError:
            said = b""
    assert b"PONG" not in said
    assert b"NOAUTH" not in said


def test_a_client_of_another_authority_refuses_the_server(lab, address, tmp_path):
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(secrets(lab)["stranger_ca_certificate"])
    with pytest.raises(ssl.SSLCertVerificationError), tls(address, PORT, "data1", str(stranger)):
        pass


@pytest.mark.parametrize("version", [V.TLSv1, V.TLSv1_1])
def test_old_versions_of_tls_are_refused(lab, version):
    with pytest.raises(ssl.SSLError), tls(lab["hosts"]["data1"]["ipv4"], PORT, "data1", lab["ca"], version):
        pass


def test_who_has_not_logged_in_is_told_nothing(lab, address):
    with tls(address, PORT, "data1", lab["ca"]) as connection:
        assert say(connection, "PING").startswith("-NOAUTH")
        assert say(connection, "AUTH", "default", "").startswith("-WRONGPASS")
        assert say(connection, "AUTH", "app", "wrong-password").startswith("-WRONGPASS")


def test_the_app_does_what_a_cache_and_a_broker_need(app):
    assert say(app, "SET", "probe", "1", "EX", "5").startswith("+OK")
    assert say(app, "LPUSH", "probe-queue", "task").startswith(":1")
    assert say(app, "BRPOP", "probe-queue", "1").endswith("task\r\n")
    assert say(app, "PUBLISH", "probe-channel", "x").startswith(":")
    assert say(app, "EVAL", "return redis.call('DEL', KEYS[1])", "1", "probe").startswith(":1")


@pytest.mark.parametrize(
    "words",
    [("CONFIG", "GET", "*"), ("FLUSHALL",), ("KEYS", "*"), ("ACL", "LIST"), ("SHUTDOWN",), ("MONITOR",)],
)
def test_the_app_administers_nothing(app, words):
    assert say(app, *words).startswith("-NOPERM")


def test_what_is_queued_is_never_evicted(app):
    told = say(app, "INFO", "memory")
    assert "maxmemory_policy:volatile-lru" in told
    assert "maxmemory_human:256.00M" in told


def test_what_is_queued_survives_a_crash(lab, app, data1):
    say(app, "LPUSH", "probe-survivor", "task")
    data1.check_output("sleep 1.2 && systemctl kill -s KILL redis-server && sleep 1")
    data1.check_output("timeout 10 sh -c 'until systemctl -q is-active redis-server; do sleep 0.2; done'")
    with tls(lab["hosts"]["data1"]["ipv4"], PORT, "data1", lab["ca"]) as connection:
        say(connection, "AUTH", "app", secrets(lab)["redis_app_password"])
        assert say(connection, "RPOP", "probe-survivor").endswith("task\r\n")


def test_it_listens_on_the_private_addresses_alone(lab, data1):
    listening = data1.check_output("ss -Hltnp | grep redis-server | awk '{print $4}'").split()
    assert sorted(listening) == sorted(
        [f"{lab['hosts']['data1']['ipv4']}:6379", f"[{lab['hosts']['data1']['ipv6']}]:6379"]
    )


def test_it_comes_up_with_the_host(data1):
    assert data1.service("redis-server").is_enabled


def test_nobody_else_reads_its_key_or_its_users(data1):
    for path in ("/etc/slipway/redis/privkey.pem", "/etc/redis/users.conf", "/etc/redis/redis.conf"):
        assert data1.run(f"runuser -u nobody -- cat {path}").rc != 0
