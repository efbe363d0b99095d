"""Taking this host out of what the edges choose from, and putting it back. With one host there is no door.

The door is a unit, app-door.service: stopped, the kernel refuses new connections from the edges, and its stop returns
when those that were there have ended. That somebody wanted it so is noted on tmpfs: a reboot forgets it.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from . import app as apps
from . import health
from .config import Config
from .errors import Refusal
from .events import timestamp
from .files import write_json
from .systemd import Systemd

DOOR = "app-door.service"


@dataclass
class Drained:
    """Who took the host out, when and why."""

    since: float
    by: str
    because: str

    def public(self) -> dict[str, object]:
        """As `status` tells it."""
        return {"since": timestamp(self.since), "by": self.by, "because": self.because}


class Door:
    """Whether the edges are let in, and who said otherwise."""

    def __init__(self, config: Config, systemd: Systemd) -> None:
        self.config = config
        self.systemd = systemd
        self.path = config.private_run / "drained.json"

    def drained(self) -> Drained | None:
        """The note of whoever took this host out, None when nobody did."""
        try:
            return Drained(**json.loads(self.path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            # Damaged, but there: somebody wanted it shut.
            return Drained(0, "unknown", "the note cannot be read")

    def state(self) -> str:
        """``none`` where no edge comes over the network, else ``open`` or ``shut``."""
        if not self.config.door:
            return "none"
        return "open" if self.systemd.active(DOOR) == "active" else "shut"

    def ensure(self) -> None:
        """Have it opened, unless somebody shut it; it opens by itself once the app is healthy."""
        if self.config.door and self.drained() is None and self.systemd.active(DOOR) == "inactive":
            self.systemd.start(DOOR, block=False)

    def drain(self, actor: str, because: str) -> bool:
        """Shut it and wait for what is in hand; return whether it was open before."""
        if not self.config.door or not self.config.others:
            raise Refusal("This is the only host of the app: nobody would be served without it, nothing was changed.")
        if self.drained() is not None:
            return False
        # A door that was never opened has nothing to stop: open it, so that it can be shut.
        self.systemd.start(DOOR)
        write_json(self.path, asdict(Drained(time.time(), actor, because)))
        self.systemd.stop([DOOR])
        return True

    def undrain(self) -> bool:
        """Open it again once the app is healthy; return whether it was shut."""
        if self.drained() is None:
            return False
        self.healthy()
        self.path.unlink(missing_ok=True)
        if not self.systemd.start(DOOR):
            raise Refusal(f"{DOOR} did not start: see 'journalctl -u {DOOR}'.")
        return True

    def healthy(self) -> None:
        """Return when the live release answers as it should, refuse otherwise."""
        config = self.config
        health.gate(
            config.socket,
            apps.of(config, config.current.resolve().name).health_path,
            config.domain,
            config.health_timeout,
            config.health_successes,
            config.health_failures,
            alive=lambda: True,
        )
