"""Who came in, and how long a host's keys are."""

from __future__ import annotations

import base64
import os
import pwd

import pytest

from plugins.modules import login_facts as subject


def public(kind: bytes, *parts: bytes) -> str:
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (kind, *parts))
    return f"{kind.decode()} {base64.b64encode(blob).decode()} root@host\n"


def test_an_rsa_key_has_the_length_of_its_modulus():
    modulus = (1 << 3071 | 1).to_bytes(384, "big")
    # A leading zero keeps a number of ssh from being negative: it is not counted.
    assert subject.describe_key(public(b"ssh-rsa", b"\1\0\1", b"\0" + modulus)) == ("ssh-rsa", 3072)


def test_others_are_told_apart():
    assert subject.describe_key(public(b"ssh-ed25519", b"x" * 32)) == ("ssh-ed25519", 256)
    assert subject.describe_key(public(b"ecdsa-sha2-nistp256", b"nistp256", b"x")) == ("ecdsa-sha2-nistp256", 0)


@pytest.mark.parametrize(
    "line", ["", "ssh-rsa", "ssh-rsa !!!", "ssh-rsa " + base64.b64encode(b"\0\0\0\x09ssh").decode()]
)
def test_what_is_no_key_is_refused(line):
    with pytest.raises(ValueError):  # noqa: PT011
        subject.describe_key(line)


def test_keys_that_are_not_there_or_are_none_are_left_out(tmp_path):
    good, bad, half = tmp_path / "good", tmp_path / "bad", tmp_path / "half"
    good.write_text("private")
    good.with_suffix(".pub").write_text(public(b"ssh-ed25519", b"x" * 32))
    bad.write_text("private")
    bad.with_suffix(".pub").write_text("nonsense")
    half.with_suffix(".pub").write_text(public(b"ssh-ed25519", b"x" * 32))
    paths = [str(path) for path in (good, bad, half, tmp_path / "absent")]
    assert subject.host_keys(paths) == [{"path": str(good), "type": "ssh-ed25519", "bits": 256}]


def test_it_is_who_logged_in_and_not_root():
    assert subject.account({"SUDO_USER": "ops"}, 0) == "ops"
    assert subject.account({}, os.getuid()) == pwd.getpwuid(os.getuid()).pw_name


def test_groups_are_named():
    me = pwd.getpwuid(os.getuid())
    assert subject.groups_of(me.pw_name)
