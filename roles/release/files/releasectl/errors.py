"""What can go wrong, as one clear sentence and an exit status."""

from __future__ import annotations


class Refusal(Exception):
    """A verb that was refused or failed: the message is one sentence for a person.

    ``details`` are merged into the JSON answer (for example ``journal``). ``discreet`` is the message without a word of
    the app's own, for who may not read what the app might echo; None where there is none in it.
    """

    exit_status = 1

    def __init__(self, message: str, discreet: str | None = None, /, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.discreet = discreet
        self.details = details


class CommandFailed(Refusal):
    """A command in a transient unit that did not end well."""


class UsageError(Refusal):
    """Arguments that cannot be meant; nothing was looked at or changed."""

    exit_status = 2


class Locked(Refusal):
    """Somebody else is at work (EX_TEMPFAIL of sysexits.h)."""

    exit_status = 75
