"""`make init`: an answer that cannot be one is explained, one that can is put into canonical form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from starter import answers
from starter.answers import Wrong

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHtAqZqnoVbcXeueJ4WWwA3dfKndjOgOjEkskLNZMp1X me@laptop"
PATTERN = answers.key_pattern(ROOT)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://shop.acme.io/", "the name alone is wanted, such as shop.acme.io"),
        ("shop", "not a name"),
        ("203.0.113.7", "not a name"),
        ("shop_1.acme.io", "not a name"),
        ("example.com", "for documentation"),
        ("{{ x }}.acme.io", "not a name"),
    ],
)
def test_a_domain_that_cannot_be_one_is_explained(text: str, said: str) -> None:
    with pytest.raises(Wrong, match=re.escape(said)):
        answers.domain(text)


def test_answers_are_put_into_canonical_form(tmp_path: Path) -> None:
    key = tmp_path / "provider"
    key.write_text("")
    assert answers.domain(" Shop.Acme.io. ") == "shop.acme.io"
    assert answers.host(f"ubuntu@203.0.113.7 {key}") == answers.Host("203.0.113.7", "ubuntu", str(key))
    assert answers.host("root@[2001:db8::7]").address == "2001:db8::7"
    assert answers.host("vps.acme.io", user="debian") == answers.Host("vps.acme.io", "debian", "")
    assert answers.networks("198.51.100.7, 10.0.0.5/24 2001:db8::/64 198.51.100.7/32") == [
        "198.51.100.7/32", "10.0.0.0/24", "2001:db8::/64",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "address is wanted"),
        ("203.0.113.7:2222", "uses port 22"),
        ("root;id@203.0.113.7", "not the name of an account"),
        ("-oProxyCommand=x", "neither an IP address nor a name"),
        ("300.1.1.1", "neither an IP address nor a name"),
        ("203.0.113.7 /nowhere/key", "no key file"),
    ],
)
def test_a_host_that_cannot_be_one_is_explained(text: str, said: str) -> None:
    with pytest.raises(Wrong, match=said):
        answers.host(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "At least one network"),
        ("0.0.0.0/0", "next to everybody"),
        ("::/0", "next to everybody"),
        ("home", "neither"),
    ],
)
def test_networks_that_lock_out_or_let_in_everybody_are_explained(text: str, said: str) -> None:
    with pytest.raises(Wrong, match=said):
        answers.networks(text)


def test_a_key_is_one_that_sshd_will_accept(tmp_path: Path) -> None:
    file = tmp_path / "id.pub"
    file.write_text(PUBLIC + "\n")
    assert answers.public_key(PUBLIC, PATTERN) == answers.Key(PUBLIC, "")
    assert answers.public_key(str(file), PATTERN).private == ""
    (tmp_path / "id").write_text("")
    # The file of the private half stands for the one beside it, and its content is never read.
    assert answers.public_key(str(tmp_path / "id"), PATTERN) == answers.Key(PUBLIC, str(tmp_path / "id"))
    for text, said in (
        ("ecdsa-sha2-nistp256 AAAA me", "none that sshd will accept"),
        (f"{PUBLIC} {{{{ x }}}}", "braces"),
        ("/nowhere", "no public key"),
    ):
        with pytest.raises(Wrong, match=said):
            answers.public_key(text, PATTERN)


@pytest.mark.parametrize("text", ["ops", "ops@example.com", "ops@acme", "{{a}}@acme.io"])
def test_an_address_that_no_authority_takes_is_explained(text: str) -> None:
    with pytest.raises(Wrong):
        answers.email(text)
