"""Send a release's artifact to a host in one ssh command, as the account that is connected: no module, no become."""

from __future__ import annotations

DOCUMENTATION = r"""
module: send_artifact
short_description: Send an artifact to the directory where a deployer may put one
description:
  - The file is whole under its name, or not there under it. Whether it is the right one is for C(releasectl prepare) to
    say, which is told its digest; so nothing is compared first, and sending it again costs the way there alone.
  - It is read into memory, for each host that is sent to at once; C(release_artifact_max_bytes) bounds it.
options:
  src:
    description: The artifact, on this machine.
    type: path
    required: true
  dest:
    description: Its path on the host.
    type: path
    required: true
"""

import shlex
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


def command(dest: str) -> str:
    """What writes its input there, for its owner's eyes alone."""
    whole = shlex.quote(dest)
    # Two who send the same at once do not write into one file.
    part = f"{whole}.$$.part"
    return f"umask 077 && cat > {part} && mv -f {part} {whole} || {{ rm -f {part}; exit 1; }}"


class ActionModule(ActionBase):
    _VALID_ARGS = frozenset(("src", "dest"))
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {"src": {"type": "path", "required": True}, "dest": {"type": "path", "required": True}}
        )
        if self._task.check_mode:
            return {"skipped": True, "changed": False, "msg": "nothing is sent in check mode."}
        source = Path(arguments["src"])
        try:
            content = source.read_bytes()
        except OSError as error:
            return refusal(f"The artifact {source} cannot be read ({error.strerror}).")
        # sudo is not asked: the directory is the account's own.
        done = self._low_level_execute_command(command(arguments["dest"]), sudoable=False, in_data=content)
        if done["rc"] != 0:
            said = [line.strip() for line in str(done["stderr"]).splitlines() if line.strip()]
            return refusal(f"{source.name} could not be put into {Path(arguments['dest']).parent}: {why(said)}.")
        return {"changed": True, "msg": f"{source.name}, {len(content)} bytes.", "bytes": len(content)}


def why(said: list[str]) -> str:
    """The last words of a shell: `cat: write error: No space left on device`."""
    return said[-1].rpartition(": ")[2].rstrip(".") if said else "it said nothing"


def refusal(sentence: str) -> dict[str, Any]:
    return {"failed": True, "refused": True, "changed": False, "msg": sentence}
