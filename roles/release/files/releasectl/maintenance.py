"""The maintenance page, for a deploy that needs it: on an edge, the file that nginx looks for at each request.

The same file as playbooks/maintenance.yml writes. What an operator closed is the operator's: it is left as it is. What
a deploy closed is opened when its lease is given back, and, when that deploy died, by the next verb that ends well.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from .config import Config
from .errors import Refusal
from .events import timestamp
from .files import sync_directory, write_json


class Site:
    """Whether this edge answers with its maintenance page, and who said so."""

    def __init__(self, config: Config) -> None:
        self.path = config.maintenance_file
        self.history = config.maintenance_history
        self.edge = config.edge

    def record(self) -> dict[str, Any] | None:
        """Who closed it, when, why, and for whom (``with``: a deploy, or releasectl by hand); None while it is open."""
        if not self.edge:
            return None
        try:
            found = json.loads(self.path.read_text())
            if isinstance(found, dict) and found:
                return found
        except FileNotFoundError:
            return None
        except ValueError:
            pass
        at = timestamp(self.path.stat().st_mtime)
        return {"by": "somebody by hand", "at": at, "because": "it does not say why"}

    def close(self, actor: str, because: str, deploy: bool) -> bool:
        """Close it; return whether it was open."""
        if not self.edge:
            raise Refusal(
                "This host is no edge, so there is nothing to close: ask for it on the hosts of the group edge."
            )
        if self.record() is not None:
            return False
        entry = {"by": actor, "at": timestamp(time.time()), "because": because, "with": "deploy" if deploy else "hand"}
        self.path.parent.mkdir(mode=0o755, exist_ok=True)
        write_json(self.path, entry, 0o644)
        self._note("on", entry)
        return True

    def open(self, actor: str, because: str) -> bool:
        """Open what was closed by releasectl; return whether it was closed. What an operator closed is refused."""
        record = self.record()
        if record is None:
            return False
        if "with" not in record:
            raise Refusal(
                f"The site was closed by {record.get('by')} at {record.get('at')} ({record.get('because')}):"
                " playbooks/maintenance.yml -e maintenance=off opens it."
            )
        self.path.unlink(missing_ok=True)
        sync_directory(self.path.parent)
        self._note("off", {"by": actor, "at": timestamp(time.time()), "because": because})
        return True

    def of_a_deploy(self) -> bool:
        """Whether it is a deploy that has closed it."""
        record = self.record()
        return record is not None and record.get("with") == "deploy"

    def end_of_deploy(self, actor: str) -> bool:
        """Open what a deploy closed, and nothing else."""
        return self.of_a_deploy() and self.open(actor, "the deploy has ended")

    def _note(self, state: str, entry: dict[str, Any]) -> None:
        self.history.parent.mkdir(mode=0o755, exist_ok=True)
        descriptor = os.open(self.history, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
        try:
            os.write(descriptor, (json.dumps({"state": state, **entry}, sort_keys=True) + "\n").encode())
        finally:
            os.close(descriptor)
