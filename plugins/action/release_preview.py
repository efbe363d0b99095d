"""Say what a deploy would do: read the artifact on this machine, and make one page of it and of what hosts answered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# This repository's own parts, whatever directory the playbook was called from, and the program that hosts run.
ROOT = Path(__file__).resolve().parents[2]
for place in (str(ROOT), str(ROOT / "roles/release/files")):
    if place not in sys.path:
        sys.path.append(place)

from plugins.preview import commits, contents, page

SIZES = ("packed", "bytes", "entries")


class ActionModule(ActionBase):
    """`release_preview: {artifact: …, requirements: …}` says how large it is; with `close: true` and what bounds it,
    the page, of what was registered as C(__release_previewed).
    """

    _VALID_ARGS = frozenset(
        (
            *("artifact", "requirements", "close", "release", "revision", "checkout", "maintenance", "restore_point"),
            *("image", "unhashed", "big_rows", "most_bytes", "most_entries", "free_min_bytes"),
        )
    )
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        given = self._task.args
        image = str(given.get("image") or "")
        artifact = Path(str(given.get("artifact") or "."))
        read = contents.Contents() if image else contents.read(artifact, str(given["requirements"]))
        if not given.get("close"):
            return {"changed": False, "msg": "", **{name: getattr(read, name) for name in SIZES}}
        variables = task_vars or {}
        hosts = {
            str(name): dict(variables["hostvars"][name].get("__release_previewed") or {})
            for name in variables["ansible_play_hosts_all"]
        }
        lost = [name for name, said in hosts.items() if not said or said.get("failed") or said.get("unreachable")]
        answered = {name: said for name, said in hosts.items() if name not in lost}
        read.revision = read.revision or str(given.get("revision") or "")
        plan = page.Plan(
            str(given["release"]), read, bool(given["unhashed"]), str(given["maintenance"]),
            str(given["restore_point"]),
            int(given["big_rows"]), int(given["most_bytes"]), int(given["most_entries"]), int(given["free_min_bytes"]),
            image,
        )  # fmt: skip
        places = [Path(str(given["checkout"])).expanduser()] if given.get("checkout") else []
        old = next((str(said["revision"]) for said in answered.values() if said.get("revision")), "")
        done = commits.between(old, read.revision, [*places, Path.cwd(), artifact.resolve().parent])
        made = page.make(plan, answered, done)
        if lost:
            why = "; ".join(f"{name}: {hosts[name].get('msg') or 'could not be reached'}" for name in lost)
            made.closing = f"{plan.release} could not be looked at everywhere: {why}. Nothing was done (check mode)."
        bad = bool(made.refused or lost)
        return {
            "changed": False, "failed": bad, "refused": bad, "table": made.lines, "msg": made.closing,
            "closing": made.closing,
        }  # fmt: skip
