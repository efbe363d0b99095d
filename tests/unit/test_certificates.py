"""The host's program for certificates: what goes live, what is asked for, and what a failure is called."""

from __future__ import annotations

import fcntl
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "roles/tls/files/certificates.py"
spec = importlib.util.spec_from_file_location("slipway_certificates", SOURCE)
assert spec
assert spec.loader
certificates = importlib.util.module_from_spec(spec)
# Dataclasses look their module up.
sys.modules[spec.name] = certificates
spec.loader.exec_module(certificates)

AUTH_FAILED = """Saving debug log to /var/log/letsencrypt/letsencrypt.log
Requesting a certificate for bookshop.example and astray.example

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: astray.example
  Type:   connection
  Detail: 192.0.2.9: Fetching http://astray.example/.well-known/acme-challenge/abc:
Connection refused

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile for more details.
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    # No service of the machine that runs the tests is asked or touched.
    monkeypatch.setattr(certificates, "is_active", lambda _: False)
    (tmp_path / "tls").mkdir()
    return certificates.Settings(
        provider="acme", name="bookshop.example", names=["bookshop.example"], key_types=["ecdsa"],
        directory=str(tmp_path / "tls"), webroot=str(tmp_path / "webroot"), certbot=str(tmp_path / "letsencrypt"),
        warn_days=21, selfsigned_days=90, stapling=True, services=["nginx"],
        acme={"directory": "https://acme.example/dir", "staging_first": False, "options": "", "state": str(tmp_path)},
    )  # fmt: skip


def put_lineage(settings: Any, key_type: str, days: int = 90, names: list[str] | None = None) -> Any:
    pair = certificates.make_selfsigned(settings, names or settings.names, days, key_type)
    directory = Path(settings.lineage_dir(key_type))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "fullchain.pem").write_bytes(pair.certificate)
    (directory / "privkey.pem").write_bytes(pair.key)
    renewal = Path(settings.certbot) / "renewal"
    renewal.mkdir(exist_ok=True)
    (renewal / f"{settings.lineage(key_type)}.conf").write_text(
        f"[renewalparams]\nserver = {settings.acme['directory']}\nauthenticator = webroot\n"
    )
    return pair


def live(settings: Any, name: str) -> str:
    return Path(settings.live, name).read_text()


def mode(settings: Any) -> int:
    return Path(settings.live, "privkey.pem").stat().st_mode & 0o777


def leads_to(settings: Any) -> str:
    return str(Path(settings.live).readlink())


def put_former(settings: Any) -> Any:
    """The pair of a host from before there was `live`."""
    pair = certificates.make_selfsigned(settings, settings.names, 90, "ecdsa")
    for path, content in zip(settings.former, (pair.certificate, pair.key), strict=True):
        Path(path).write_bytes(content)
    return pair


class Programs:
    """What the program runs on a host: nginx and systemctl, which answer as they are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.configuration = ""
        self.fails = ""
        monkeypatch.setattr(certificates, "is_active", lambda unit: unit == "nginx")
        real = certificates.run

        def run(*argv: str, **more: Any) -> Any:
            if argv[0] not in ("nginx", "systemctl"):
                return real(*argv, **more)
            called = " ".join(argv)
            self.asked.append(called)
            code = 1 if called == self.fails else 0
            said = b"nginx: [emerg] no such thing" if code else b""
            return subprocess.CompletedProcess(argv, code, self.configuration.encode(), said)

        monkeypatch.setattr(certificates, "run", run)


@pytest.fixture
def programs(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(monkeypatch)


def test_without_any_a_stand_in_goes_live_and_browsers_are_not_told_to_insist(settings):
    lines = certificates.settle(settings)
    assert "the edge shows the certificate of the kind stand-in" in lines
    assert '$slipway_tls_trusted { default ""; }' in live(settings, "http.conf")
    leaf = certificates.read_leaf(live(settings, "fullchain.pem").encode())
    assert leaf.names == ("bookshop.example",)
    assert leaf.key_type == "ecdsa"
    assert mode(settings) == 0o600
    assert certificates.settle(settings) == []


def test_what_would_be_done_is_said_and_not_done(settings):
    assert any("is made" in line for line in certificates.settle(settings, dry=True))
    assert list(Path(settings.directory).iterdir()) == []


def test_an_obtained_one_takes_over_and_one_generation_back_is_kept(settings):
    certificates.settle(settings)
    for _ in range(3):
        put_lineage(settings, "ecdsa")
        assert certificates.settle(settings)
    assert certificates.kind_of_live(settings) == "acme"
    assert leads_to(settings) == "store/4"
    assert certificates.generations(settings) == [3, 4]


def test_both_keys_stand_side_by_side(settings):
    settings.key_types = ["rsa", "ecdsa"]
    for key_type in settings.key_types:
        put_lineage(settings, key_type)
    certificates.settle(settings)
    assert live(settings, "server.conf").count("ssl_certificate ") == 2
    # The first one is the one that others know by name.
    assert certificates.read_leaf(live(settings, "fullchain.pem").encode()).key_type == "rsa"
    assert certificates.read_leaf(live(settings, "fullchain-ecdsa.pem").encode()).key_type == "ecdsa"


def test_a_key_of_another_pair_never_goes_live(settings):
    put_lineage(settings, "ecdsa")
    certificates.settle(settings)
    before = leads_to(settings)
    other = certificates.make_selfsigned(settings, settings.names, 90, "ecdsa")
    Path(settings.lineage_dir("ecdsa"), "privkey.pem").write_bytes(other.key)
    with pytest.raises(certificates.Trouble, match=r"the key is not that of the certificate for bookshop\.example"):
        certificates.settle(settings)
    assert leads_to(settings) == before


def test_what_nginx_refuses_is_taken_back_and_tried_again_by_the_next_run(settings, programs):
    put_lineage(settings, "ecdsa")
    certificates.settle(settings)
    put_lineage(settings, "ecdsa")
    programs.fails = "nginx -t"
    for _ in range(2):
        with pytest.raises(certificates.Trouble, match=r"refused by nginx -t.*no such thing"):
            certificates.settle(settings)
        assert leads_to(settings) == "store/1"
        assert certificates.generations(settings) == [1]
    programs.fails = ""
    assert certificates.settle(settings)
    assert leads_to(settings) == "store/2"
    assert programs.asked[-2:] == ["nginx -t", "systemctl reload nginx"]


@pytest.mark.parametrize("moment", ["lead", "try_out", "show"])
def test_a_run_that_is_cut_short_is_finished_by_the_next_one(settings, programs, monkeypatch, moment):
    """Killed with the link renamed and nginx not told, the next run must not find that all is well."""
    put_lineage(settings, "ecdsa")
    certificates.settle(settings)
    put_lineage(settings, "ecdsa")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(certificates, moment, die)
        with pytest.raises(KeyboardInterrupt):
            certificates.settle(settings)
    programs.asked.clear()
    assert certificates.settle(settings, dry=True)
    assert programs.asked == []
    assert certificates.settle(settings)
    assert programs.asked == ["nginx -t", "systemctl reload nginx"]
    assert live(settings, "fullchain.pem") == Path(settings.lineage_dir("ecdsa"), "fullchain.pem").read_text()
    assert certificates.settle(settings) == []


def test_one_that_was_cut_short_and_that_nginx_refuses_is_taken_back_as_well(settings, programs, monkeypatch):
    put_lineage(settings, "ecdsa")
    certificates.settle(settings)
    put_lineage(settings, "ecdsa")
    programs.fails = "systemctl reload nginx"
    with pytest.raises(certificates.Trouble, match="systemctl reload nginx failed"):
        certificates.settle(settings)
    assert leads_to(settings) == "store/2"
    programs.fails = "nginx -t"
    with pytest.raises(certificates.Trouble, match="served on"):
        certificates.settle(settings)
    assert leads_to(settings) == "store/1"


def test_the_former_pair_goes_when_nothing_names_it_any_more(settings, programs):
    put_former(settings)
    put_lineage(settings, "ecdsa")
    programs.configuration = f"ssl_certificate {settings.former[0]};"
    certificates.settle(settings)
    assert all(Path(path).exists() for path in settings.former)
    programs.configuration = f"ssl_certificate {settings.live}/fullchain.pem;"
    assert len(certificates.settle(settings, dry=True)) == 2
    assert all(Path(path).exists() for path in settings.former)
    assert len(certificates.settle(settings)) == 2
    assert not any(Path(path).exists() for path in settings.former)
    assert certificates.settle(settings) == []


def test_the_former_pair_stays_while_nginx_cannot_say_what_it_reads(settings, programs):
    put_former(settings)
    put_lineage(settings, "ecdsa")
    programs.fails = "nginx -T"
    certificates.settle(settings)
    assert all(Path(path).exists() for path in settings.former)


def test_a_host_from_before_shows_what_was_provided_until_there_is_an_obtained_one(settings):
    pair = put_former(settings)
    certificates.settle(settings)
    assert live(settings, "fullchain.pem").encode() == pair.certificate
    assert certificates.kind_of_live(settings) == "provided"
    assert certificates.settle(settings) == []


def test_nobody_else_can_hold_the_lock(settings):
    with certificates.alone(settings):
        lock = Path(settings.directory, ".lock")
        assert lock.stat().st_mode & 0o777 == 0o600
        with lock.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_good_one_of_another_provider_serves_until_there_is_an_obtained_one(settings):
    settings.provider = "provided"
    pair = certificates.make_selfsigned(settings, settings.names, 90, "ecdsa")
    provided = Path(settings.directory, "provided")
    provided.mkdir()
    (provided / "fullchain.pem").write_bytes(pair.certificate)
    (provided / "privkey.pem").write_bytes(pair.key)
    certificates.settle(settings)
    settings.provider = "acme"
    assert certificates.settle(settings) == []
    assert certificates.kind_of_live(settings) == "provided"


def test_a_mode_by_hand_is_put_right(settings):
    put_lineage(settings, "ecdsa")
    certificates.settle(settings)
    Path(settings.live, "privkey.pem").chmod(0o644)
    assert any("has the mode 0644, not 0600" in line for line in certificates.settle(settings))
    assert mode(settings) == 0o600


def test_a_self_signed_one_is_made_anew_in_its_last_third(settings, monkeypatch):
    settings.provider = "selfsigned"
    certificates.settle(settings)
    first = live(settings, "fullchain.pem")
    now = certificates.time.time()
    monkeypatch.setattr(certificates.time, "time", lambda: now + 59 * 86400)
    assert certificates.settle(settings) == []
    monkeypatch.setattr(certificates.time, "time", lambda: now + 61 * 86400)
    assert any("it ends on" in line for line in certificates.settle(settings))
    assert live(settings, "fullchain.pem") != first
    settings.names = ["bookshop.example", "www.bookshop.example"]
    assert any("its names are others" in line for line in certificates.settle(settings))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _: None, ""),
        (lambda s: s.names.append("www.bookshop.example"), "its names are bookshop.example"),
        (lambda s: s.acme.update(directory="https://other.example/dir"), "it is of https://acme.example/dir"),
        (lambda s: Path(s.certbot, "renewal", "bookshop.example.conf").unlink(), "nothing says how it is renewed"),
    ],
    ids=["nothing", "a name", "another server", "no renewal"],
)
def test_a_certificate_is_asked_for_with_a_reason(settings, change, why):
    assert certificates.why_obtain(settings, "ecdsa") == "there is none"
    put_lineage(settings, "ecdsa")
    change(settings)
    found = certificates.why_obtain(settings, "ecdsa")
    assert found.startswith(why)
    assert bool(found) == bool(why)


def test_one_that_ended_is_asked_for(settings, monkeypatch):
    put_lineage(settings, "ecdsa", days=3)
    now = certificates.time.time()
    monkeypatch.setattr(certificates.time, "time", lambda: now + 4 * 86400)
    assert certificates.why_obtain(settings, "ecdsa").startswith("it ended on")


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (
            AUTH_FAILED,
            "astray.example: 192.0.2.9: Fetching http://astray.example/.well-known/acme-challenge/abc:"
            " Connection refused (connection)",
        ),
        (
            "An unexpected error occurred:\nurn:ietf:params:acme:error:rateLimited :: too many certificates",
            "too many certificates (urn:ietf:params:acme:error:rateLimited)",
        ),
        (
            "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='192.0.2.1', port=14000): Max retries",
            "it cannot be reached",
        ),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "its own certificate is not to be"),
        (
            "Failed to renew certificate a with error: the authority says\nno\n1 renew failure(s), 0 parse failure(s)",
            "the authority says",
        ),
        ("Saving debug log to /x\nSomething new\nSee the logfile for details", "Something new"),
    ],
    ids=["domain", "server", "down", "stranger", "renewal", "unknown"],
)
def test_a_failure_is_one_line(output, sentence):
    said = certificates.explain(output)
    assert said.startswith(sentence)
    assert "\n" not in said


def test_stapling_is_for_certificates_that_name_a_responder(settings, monkeypatch):
    pair = certificates.make_selfsigned(settings, settings.names, 90, "ecdsa")
    with_issuer = certificates.Pair(pair.certificate + pair.certificate, pair.key)
    assert b"ssl_stapling" not in certificates.render(settings, "provided", {"": with_issuer})["server.conf"][0]
    leaf = with_issuer.leaf
    named = type(leaf)(**{**leaf.__dict__, "ocsp": "http://ocsp.example"})
    monkeypatch.setattr(certificates, "read_leaf", lambda _: named)
    files = certificates.render(settings, "provided", {"": with_issuer})
    assert b"ssl_stapling on;" in files["server.conf"][0]
    assert files["chain.pem"][0] == pair.certificate
    settings.stapling = False
    assert b"ssl_stapling" not in certificates.render(settings, "provided", {"": with_issuer})["server.conf"][0]


def test_a_renewal_that_fails_is_told_and_a_missing_name_is_not_asked_for_then(settings, monkeypatch):
    put_lineage(settings, "ecdsa")
    settings.names.append("www.bookshop.example")
    asked = []

    def certbot(_: Any, *arguments: str, options: bool = True) -> tuple[int, str]:
        asked.append(arguments[0])
        return 1, "urllib3.exceptions.NewConnectionError: Connection refused"

    monkeypatch.setattr(certificates, "certbot", certbot)
    with pytest.raises(certificates.Trouble) as told:
        certificates.renew(settings)
    assert "could not be renewed. The ACME server https://acme.example/dir: it cannot be reached" in str(told.value)
    assert asked == ["renew"]
    assert "www" not in str(told.value)
    assert "nginx" not in str(told.value)
    assert certificates.kind_of_live(settings) == "acme"


def test_a_certificate_of_somebody_else_that_fails_is_named_and_holds_nothing_up(settings, monkeypatch):
    put_lineage(settings, "ecdsa")
    asked = []

    def certbot(_: Any, *arguments: str, options: bool = True) -> tuple[int, str]:
        asked.append(arguments[0])
        return (1, "Failed to renew certificate old.example with error: gone") if arguments[0] == "renew" else (0, "")

    monkeypatch.setattr(certificates, "certbot", certbot)
    settings.key_types = ["ecdsa", "rsa"]
    monkeypatch.setattr(certificates, "refuse_unanswered", lambda _: None)
    with pytest.raises(certificates.Trouble) as told:
        certificates.renew(settings)
    assert asked == ["renew", "certonly"]
    assert "old.example could not be renewed, which the edge does not show: gone" in str(told.value)
    assert "bookshop.example" not in str(told.value)


def test_what_certbot_does_not_delete_is_not_called_removed(settings, monkeypatch):
    for kind in ("ecdsa", "rsa"):
        put_lineage(settings, kind)
    monkeypatch.setattr(certificates, "certbot", lambda *_, **__: (1, "it is busy"))
    assert certificates.obtain(settings, dry=True) == ["the certificate (rsa) that is no longer wanted is removed"]
    with pytest.raises(certificates.Trouble, match="that is no longer wanted stays: it is busy"):
        certificates.obtain(settings)
