"""What a host answers to `preview` and `rollback --plan`: by reading alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from lab import oci
from releasectl import cli, migrations, preview, store
from releasectl.errors import Refusal, UsageError
from releasectl.lock import Locks
from releasectl.migrations import Record
from tests.unit.releasectl.conftest import request_of

SHA = "1" * 64


def asked(release="e", packed=1000, unpacked=2000, entries=3):
    sizes = (f"--packed={packed}", f"--unpacked={unpacked}", f"--entries={entries}")
    return request_of("preview", f"--id={release}", f"--sha256={SHA}", *sizes)


def everything(config):
    """Each file with its content and its time: what a look must leave as it was."""
    found = {}
    for path in sorted(config.releases.parent.rglob("*")):
        seen = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (seen.st_mtime_ns, seen.st_mode, content)
    return found


@pytest.fixture
def live(host, config):
    """`a` is live after `b`; a lock file and migrations lie in `a`."""
    host.activate("b", "me")
    host.activate("a", "me")
    source = config.release_dir("a") / "src"
    source.mkdir()
    (source / "requirements.lock").write_text("Django==5.2.7 \\\n    --hash=sha256:00\n")
    migrations.keep(config.release_dir("a"), [Record("shop.m1", "compatible"), Record("shop.m2", "incompatible")])
    migrations.keep(config.release_dir("b"), [Record("shop.m1", "compatible")])
    return host


def look(live, **words):
    locks = Locks(live.config.private_run, live.config.state)
    return preview.deploy(live, locks, asked(**words))


def test_it_says_what_is_here_and_changes_nothing(live, config):
    before = everything(config)
    said = look(live)
    assert everything(config) == before
    assert (said["live"], said["prepared"], said["refused"]) == ("a", False, [])
    assert said["applied"] == ["shop.m1", "shop.m2"]
    assert said["requirements"] == {"django": "5.2.7"}
    assert said["processes"] == ["gunicorn", "celery-worker", "celery-beat"]
    assert said["disks"][0]["needed"] >= 2000


def test_settings_are_told_by_name_and_never_by_value(live, config):
    (config.env.parent / "env.1" / "OLD").write_text("x")
    (config.env.parent / "env.1" / "KEY").write_text("hunter1")
    second = config.env.parent / "env.2"
    second.mkdir()
    for name, value in (("KEY", "hunter2"), ("NEW", "y")):
        (second / name).write_text(value)
    config.env.unlink()
    config.env.symlink_to("env.2")
    said = look(live)
    changes = {"added": ["NEW"], "removed": ["OLD"], "changed": ["KEY"]}
    assert said["settings"] == {**changes, "names": ["KEY", "NEW"], "waiting": None}
    assert "hunter" not in json.dumps(said)


def test_of_an_image_it_says_what_its_registry_would_send(live, config, monkeypatch):
    name = f"registry.example.com/shop@sha256:{SHA}"
    monkeypatch.setattr(store, "manifest", lambda *_: ("", {"layers": [{"digest": "x", "size": 7000}]}))
    words = request_of("preview", "--id=e", f"--image={name}")
    locks = Locks(config.private_run, config.state)
    assert "release_images: true" in preview.deploy(live, locks, words)["refused"][0]
    live.config = replace(config, images=True, image_registries=("registry.example.com",))
    said = preview.deploy(live, locks, words)
    assert said["refused"] == []
    assert sum(disk["needed"] for disk in said["disks"]) == 7000 * 5
    monkeypatch.setattr(store, "attached", lambda *_: None)
    monkeypatch.setattr(store, "referrers", lambda *_: [])
    key = config.state / "key.pub"
    key.write_text(oci.public_key(ec.generate_private_key(ec.SECP256R1())))
    live.config = replace(live.config, image_signatures="required", image_keys=key)
    assert "is not signed" in preview.deploy(live, locks, words)["refused"][0]
    with pytest.raises(UsageError, match="or --image"):
        preview.deploy(live, locks, request_of("preview", "--id=e"))


def test_what_a_deploy_would_be_refused_for_is_said(live):
    assert look(live, release="a")["refused"] == ["a is live already."]
    assert "other content" in look(live, release="c")["refused"][0]
    live.config = replace(live.config, disk_check=True, free_min_bytes=10**18)
    assert "disk space" in look(live)["refused"][0]


def test_whoever_has_the_lease_is_named(live, config):
    locks = Locks(config.private_run, config.state)
    with locks.verb("lock", "ann"):
        locks.take("ann", "deploy of c", 900)
    assert "ann holds the lease for 'deploy of c'" in look(live)["refused"][0]
    with locks.verb("unlock", "ann"):
        locks.release(None, force=True)
    assert look(live)["refused"] == []


def test_a_first_release_meets_nothing(host):
    said = look(host)
    assert (said["live"], said["applied"], said["requirements"]) == (None, [], None)


def test_a_rollback_is_told_or_refused_as_it_would_be(live, config):
    before = everything(config)
    with pytest.raises(Refusal, match=r"b does not work with .*shop\.m2"):
        preview.rollback(live, None, accept=False)
    said = preview.rollback(live, None, accept=True)
    assert (said["release"], said["previous"], said["breaking"]) == ("b", "a", ["shop.m2"])
    assert said["message"].startswith("It would roll back from a to b; 1 migrations lie between")
    with pytest.raises(Refusal, match="can be had"):
        preview.rollback(live, "zzz", accept=False)
    assert everything(config) == before


def test_both_are_answered_at_once_and_by_no_job(live, config, monkeypatch):
    monkeypatch.setattr(cli, "Systemd", lambda: live.systemd)
    monkeypatch.setattr(cli.Job, "of", lambda *_words: pytest.fail("a job was begun"))
    assert cli.run_verb(config, asked())["live"] == "a"
    answer = cli.run_verb(config, request_of("rollback", "--plan", "--accept-schema"))
    assert (answer["ok"], answer["changed"], answer["release"]) == (True, False, "b")


def test_nothing_is_left_of_a_look_on_a_host_without_releases(config, systemd, tmp_path: Path):
    before = everything(config)
    host = cli.Lifecycle(config, systemd)
    preview.deploy(host, Locks(config.private_run, config.state), asked())
    assert everything(config) == before
