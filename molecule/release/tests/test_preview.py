"""`deploy.yml --check` and `rollback.yml --check`: what they say, and that the host is as it was before."""

from __future__ import annotations

from typing import Any

import pytest

from lab import cargo as packing
from molecule.conftest import LAB

# Paths, kinds, sizes, times and content of all that a release, its settings or its record is made of.
PLACES = "/opt/app /etc/app /etc/slipway /var/lib/app /var/lib/slipway /var/www/app /run/app /run/slipway /var/log/app"
SNAPSHOT = (
    f"find {PLACES} -printf '%p %y %s %T@ %C@ %l\\n' | sort; systemctl list-units --all --plain --no-legend"
    " 'gunicorn@*' 'celery-*' 'releasectl-*' | awk '{print $1, $3}'"
)


@pytest.fixture(scope="module")
def renaming() -> dict[str, Any]:
    return packing.variants(["rename-7"], LAB)["rename-7"]


def test_a_deploy_is_told_and_nothing_changes(
    app1: Any, ops: Any, edge: Any, cargo: dict[str, Any], renaming: dict[str, Any]
) -> None:
    live = ops.have_live(edge, cargo["good-1"])
    before = app1.check_output(SNAPSHOT)
    words = ["playbooks/deploy.yml", "-e", f"release_artifact={renaming['artifact']}"]
    told = ops.playbook(*words, "--check")
    assert told.code == 0, told.output
    assert told.closing.startswith(f"{renaming['id']} would go live on app1 in place of {live}: ")
    assert "the site is closed meanwhile" in told.closing
    for said in ("bookshop.0004_pen_name", "renames author.pen to pen_name", "starts gunicorn", "disk: about"):
        assert said in told.output
    refused = ops.playbook(*words, "--check", "-e", "release_maintenance=never")
    assert refused.code != 0
    assert refused.closing.startswith(f"{renaming['id']} would be refused. What runs would break by")
    assert app1.check_output(SNAPSHOT) == before


def test_a_rollback_is_told_and_nothing_changes(app1: Any, ops: Any, edge: Any, cargo: dict[str, Any]) -> None:
    live = ops.have_live(edge, cargo["good-1"])
    before = app1.check_output(SNAPSHOT)
    unknown = ops.playbook("playbooks/rollback.yml", "--check", "-e", "release_id=nobody-knows")
    assert unknown.code != 0
    assert "nobody-knows is not known on this host" in unknown.closing
    same = ops.playbook("playbooks/rollback.yml", "--check", "-e", f"release_id={live}")
    assert f"{live} is live already" in same.closing
    assert app1.check_output(SNAPSHOT) == before
