"""Who may change something now: a verb holds a flock, a deploy (many verbs) holds a lease that each verb renews."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import Locked, Refusal
from .events import timestamp
from .files import write_json


@dataclass
class Lease:
    """One deploy's claim: ``busy`` names the verb that runs under it now, None between verbs."""

    token: str
    holder: str
    purpose: str
    since: float
    expires: float
    seconds: int
    busy: str | None = None

    def public(self) -> dict[str, object]:
        """What others may know: not the token."""
        return {
            "holder": self.holder,
            "purpose": self.purpose,
            "since": timestamp(self.since),
            "expires": timestamp(self.expires),
            "busy": self.busy,
        }


class Locks:
    """The flock of the running verb and the lease of the running deploy."""

    def __init__(self, private_run: Path, state: Path) -> None:
        self.lock_path = private_run / "releasectl.lock"
        self.lease_path = state / "lease.json"
        self._held = False

    def read_lease(self) -> Lease | None:
        """The lease as recorded, expired or not."""
        try:
            return Lease(**json.loads(self.lease_path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            # Written atomically by us alone: one that cannot be read was damaged, and holds nobody off.
            return None

    @contextlib.contextmanager
    def verb(self, verb: str, actor: str, wait: float = 0) -> Iterator[None]:
        """Hold the flock for one verb; after ``wait`` seconds somebody else's is refused with who and what."""
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise Locked(f"{self._holder(descriptor)}; wait for it to end and try again.") from None
                    time.sleep(0.1)
            note = json.dumps({"verb": verb, "actor": actor, "since": time.time()}).encode()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note, 0)
            self._held = True
            yield
        finally:
            self._held = False
            os.close(descriptor)

    def held(self) -> bool:
        """Whether a verb is running now."""
        try:
            descriptor = os.open(self.lock_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @staticmethod
    def _holder(descriptor: int) -> str:
        try:
            note = json.loads(os.pread(descriptor, 4096, 0))
            return f"{note['actor']} is running '{note['verb']}' since {timestamp(note['since'])}"
        except (ValueError, KeyError, TypeError):
            return "Another verb is just starting"

    def take(self, holder: str, purpose: str, seconds: int) -> Lease:
        """Take the lease, over a dead or expired one too; refuse when a living one holds it."""
        self._refuse_living(self.read_lease())
        now = time.time()
        lease = Lease(secrets.token_hex(16), holder, purpose, now, now + seconds, seconds)
        write_json(self.lease_path, asdict(lease))
        return lease

    def release(self, token: str | None, force: bool) -> bool:
        """Give the lease back; return whether there was one. A wrong token is refused unless ``force``."""
        lease = self.read_lease()
        if lease is None:
            return False
        if not force and (token is None or not secrets.compare_digest(token, lease.token)):
            raise Locked(
                f"The lease belongs to {self._describe(lease)}: give its --token, or --force when that deploy is dead."
            )
        self.lease_path.unlink(missing_ok=True)
        return True

    @contextlib.contextmanager
    def under_lease(self, verb: str, token: str | None) -> Iterator[None]:
        """Run one verb under the lease that ``token`` names, or under none when nobody holds one."""
        assert self._held, "the flock comes first"
        lease = self.read_lease()
        if token is None:
            self._refuse_living(lease)
            yield
            return
        if lease is None or not secrets.compare_digest(token, lease.token):
            raise Refusal(
                "This deploy no longer holds the lease: it expired or was taken over; start the deploy again."
            )
        self._renew(lease, verb)
        try:
            yield
        finally:
            # On a disk that is full: what the verb did is done, and the next one renews again.
            with contextlib.suppress(OSError):
                self._renew(lease, None)

    def _renew(self, lease: Lease, busy: str | None) -> None:
        lease.busy = busy
        lease.expires = time.time() + lease.seconds
        write_json(self.lease_path, asdict(lease))

    def _refuse_living(self, lease: Lease | None) -> None:
        """We hold the flock: a lease that says a verb is running was left by one that died."""
        if lease is None or lease.busy is not None or lease.expires < time.time():
            return
        raise Locked(
            f"{self._describe(lease)}; wait for it, or run 'releasectl unlock --force' when that deploy is dead."
        )

    def in_the_way(self) -> str | None:
        """Who else's deploy would be waited for, in a sentence; asked without a lock."""
        lease = self.read_lease()
        if lease is None or lease.expires < time.time() or (lease.busy is not None and not self.held()):
            return None
        return f"{self._describe(lease)}."

    @staticmethod
    def _describe(lease: Lease) -> str:
        return (
            f"{lease.holder} holds the lease for '{lease.purpose}' since {timestamp(lease.since)}"
            f" (until {timestamp(lease.expires)})"
        )
