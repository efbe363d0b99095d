"""Twenty controls, drawn by a seed, are broken by hand one by one; the audit names each, and site.yml mends each.

The seed is printed; SLIPWAY_TEST_SEED=<seed> draws the same ones again. In full (`make test-full`) all are broken, the
audit is asked after each, and it may name no other than what the catalogue says that a break breaks as well."""

from __future__ import annotations

import itertools
import os
import random

import pytest

from plugins.auditing import catalogue
from tests.outside import changes, play

COUNT = 20
FULL = bool(os.environ.get("SLIPWAY_TEST_FULL"))
# After how many breaks the audit is asked. Each takes a host's time, and few breaks undo each other.
EVERY = 1 if FULL else 5


def breakable(report, broken):
    """The controls that were seen as they should be on this host, and that can be broken by hand."""
    seen = {control["id"] for control in report["controls"] if control["result"] == "passed"}
    return [control for control in broken if control.id in seen]


def failures(report):
    return {control["id"] for control in report["controls"] if control["result"] == "failed"}


@pytest.fixture
def mended(lab):
    """However far the test gets, the hosts are whole again after it."""
    broken: list[str] = []
    yield broken
    if broken:
        play(lab, "playbooks/site.yml")


def test_what_is_broken_by_hand_is_named_and_mended(lab, audit, as_root, capsys, mended):
    seed = os.environ.get("SLIPWAY_TEST_SEED") or str(random.randrange(1_000_000))
    known = [control for control in catalogue.load().controls if control.breaks]
    before = audit()
    assert before.code == 0, before.output[-3000:]
    hosts = {control.id: host for host in ("data1", "app1") for control in breakable(before.reports[host], known)}
    candidates = [control for control in known if control.id in hosts]
    assert len(candidates) >= COUNT
    drawn = random.Random(seed).sample(candidates, len(candidates) if FULL else COUNT)
    with capsys.disabled():
        print(f"\nSLIPWAY_TEST_SEED={seed} draws {', '.join(control.id for control in drawn)}", flush=True)

    # Before and after, everything is asked; in between, without the long tests, those that were drawn.
    asked = {} if FULL else {"audit_only": [control.id for control in drawn]}
    last = dict(before.reports)
    for batch in itertools.batched(drawn, EVERY):
        for control in batch:
            mended.append(control.id)
            as_root(hosts[control.id], control.breaks, before.reports[hosts[control.id]]["variables"])
        names = sorted({hosts[control.id] for control in batch})
        named = audit("--limit", ",".join(names), **asked)
        assert named.code != 0, f"{', '.join(c.id for c in batch)} broken by hand, and the audit passed (seed {seed})"
        for control in batch:
            host = hosts[control.id]
            report = named.reports[host]
            assert f"{host}: {control.id} {control.title}" in named.output or len(report["findings"]) > 19
            # It is named; in full, nothing else is that was as it should be, but for what looks at the same thing.
            failed = failures(report)
            assert control.id in failed, f"{control.id} was broken by hand and is not named (seed {seed})"
            if FULL:
                new = failed - failures(last[host])
                assert new <= {control.id, *control.also}, f"{control.id} names others (seed {seed})"
            last[host] = report

    roles = sorted({control.where.partition("/")[0] for control in drawn})
    done = play(lab, "playbooks/site.yml", "--tags", ",".join(roles))
    assert done.returncode == 0, done.stdout[-3000:]
    again = audit()
    assert again.code == 0, f"site.yml did not mend all (seed {seed}): {again.output[-3000:]}"
    mended.clear()
    for control in drawn:
        now = {one["id"]: one["result"] for one in again.reports[hosts[control.id]]["controls"]}
        assert now[control.id] == "passed"
    after = play(lab, "playbooks/site.yml", "--check", "--tags", ",".join(roles))
    assert changes(after.stdout) == {"app1": 0, "data1": 0}
