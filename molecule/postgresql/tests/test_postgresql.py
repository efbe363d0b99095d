"""The database answers over verified TLS, on the private network, to the app alone, which may do nothing else."""

from __future__ import annotations

import socket
import ssl
import struct

import pytest

from tests.outside import context, is_open, secrets

PORT = 5432


@pytest.fixture(params=["ipv4", "ipv6"])
def address(request, lab):
    return lab["hosts"]["data1"][request.param]


def startup(user: str, database: str) -> bytes:
    body = struct.pack("!i", 196608) + f"user\0{user}\0database\0{database}\0\0".encode()
    return struct.pack("!i", len(body) + 4) + body


def ask_for_tls(address: str) -> socket.socket:
    connection = socket.create_connection((address, PORT), timeout=10)
    connection.sendall(struct.pack("!ii", 8, 80877103))
    assert connection.recv(1) == b"S"
    return connection


@pytest.fixture
def psql(lab, data1):
    """SQL as the app says it, over the private network, with everything verified."""
    data1.check_output(f"printf '%s' '{secrets(lab)['ca_certificate']}' >/run/test-ca.pem")

    def run(sql, user="app", database="app", password=None, mode="verify-full", host="data1"):
        password = password or secrets(lab)["postgres_app_password"]
        where = f"host={host} hostaddr={lab['hosts']['data1']['ipv4']} user={user} dbname={database}"
        return data1.run(
            f"PGPASSWORD={password} psql -Atq '{where} sslmode={mode} sslrootcert=/run/test-ca.pem' -c \"{sql}\""
        )

    yield run
    data1.check_output("rm /run/test-ca.pem")


def test_tls_is_verified_for_the_hosts_name(lab, address):
    with context(lab["ca"]).wrap_socket(ask_for_tls(address), server_hostname="data1") as connection:
        assert connection.version() in ("TLSv1.2", "TLSv1.3")


def test_a_client_of_another_authority_refuses_the_server(lab, address, tmp_path):
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(secrets(lab)["stranger_ca_certificate"])
    with pytest.raises(ssl.SSLCertVerificationError):
        context(str(stranger)).wrap_socket(ask_for_tls(address), server_hostname="data1")


def test_without_tls_nobody_is_let_in(address):
    with socket.create_connection((address, PORT), timeout=10) as connection:
        connection.sendall(startup("app", "app"))
        said = connection.recv(4096)
    assert said[:1] == b"E"
    assert b"no encryption" in said


def test_the_app_logs_in_and_owns_its_database(psql):
    done = psql(
        "create table t_probe (n int); insert into t_probe values (42); select n from t_probe; drop table t_probe"
    )
    assert done.stdout.strip() == "42", done.stderr


@pytest.mark.parametrize(
    ("options", "trouble"),
    [
        ({"password": "wrong-password"}, "password authentication failed"),
        ({"user": "postgres"}, "no pg_hba.conf entry"),
        ({"database": "postgres"}, "no pg_hba.conf entry"),
        ({"mode": "disable"}, "no pg_hba.conf entry"),
        ({"host": "data2"}, "does not match host name"),
    ],
)
def test_anything_else_is_refused(psql, options, trouble):
    done = psql("select 1", **options)
    assert done.rc != 0
    assert trouble in done.stderr


@pytest.mark.parametrize(
    "sql",
    [
        "create role other",
        "create database other",
        "copy (select 1) to program 'id'",
        "select pg_read_file('/etc/passwd')",
        "alter system set log_connections = off",
    ],
)
def test_the_app_may_do_no_more_than_it_needs(psql, sql):
    done = psql(sql)
    assert done.rc != 0
    assert "permission denied" in done.stderr or "must be superuser" in done.stderr


def test_passwords_are_kept_as_scram(data1):
    kept = data1.check_output(
        "runuser -u postgres -- psql -Atc \"select rolpassword from pg_authid where rolname = 'app'\""
    )
    assert kept.startswith("SCRAM-SHA-256$")


def test_it_listens_on_the_private_addresses_alone(lab, data1):
    listening = data1.check_output("ss -Hltn sport = :5432 | awk '{print $4}'").split()
    assert sorted(listening) == sorted(
        [f"{lab['hosts']['data1']['ipv4']}:5432", f"[{lab['hosts']['data1']['ipv6']}]:5432"]
    )


def test_it_comes_up_with_the_host(data1, lab):
    assert data1.service("postgresql").is_enabled
    assert is_open(lab["hosts"]["data1"]["ipv4"], PORT)


def test_its_key_is_its_own(data1):
    key = data1.file("/etc/slipway/postgresql/privkey.pem")
    assert (key.user, key.mode) == ("postgres", 0o600)
