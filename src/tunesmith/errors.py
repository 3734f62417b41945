"""Every exception the control plane raises, in one tree.

    TunesmithError
    ├── InvalidInput          the request or a file it names is wrong            (422)
    │   ├── MissingReference  it names a file, model or dataset that is not there (400)
    │   └── PromptRefused     the engine that was asked says what is wrong with it (400)
    ├── NotFound              no record with that id                             (404)
    ├── Conflict              the record's state does not allow it               (409)
    ├── Unauthenticated       no key, or not a valid one                         (401)
    ├── Forbidden             a valid key without the needed scope, or a path
    │                         outside the allowed roots                          (403)
    ├── TooLarge              over a size limit                                  (413)
    ├── Busy                  as many wait for it as may                         (429)
    ├── OutOfSpace            the state disk is full                             (507)
    ├── Unavailable           the journal stopped writing, or is shutting down   (503)
    ├── WorkerFailed          a worker process ended without an answer            (500)
    ├── JournalDamaged        a record file does not check out; refuses to start
    ├── StateFolderIncomplete a journal is missing or older than it was
    ├── StateFolderUnusable   locked by another server, read-only, foreign-owned
    └── SettingsInvalid       tunesmith.yaml or a variable cannot be used

Which HTTP status each one becomes is decided in one place, ``api/problems.py``; the numbers above are that table.
"""

from __future__ import annotations

import msgspec


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong: what failed, where, and how to fix it."""

    message: str
    where: str | None = None
    """A config key such as ``training.learning_rate``, a request field, or ``file:line``."""
    mend: str | None = None
    """What to do about it, as an instruction."""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message}" + (f" ({self.mend})" if self.mend else "")


class TunesmithError(Exception):
    """Base of all errors that are reported to people. Carries what failed, where, and how to fix it."""

    def __init__(
        self, message: str, *, where: str | None = None, mend: str | None = None, faults: tuple[Fault, ...] = ()
    ) -> None:
        self.message = message
        self.where = where
        self.mend = mend
        self.faults = faults
        """The single faults, when several were gathered; empty when ``message`` is the only one."""
        super().__init__(str(self))

    def __str__(self) -> str:
        text = str(Fault(message=self.message, where=self.where, mend=self.mend))
        return "\n  - ".join([text, *map(str, self.faults)])


class InvalidInput(TunesmithError):
    """The request, or a file it names, does not make sense."""


class MissingReference(InvalidInput):
    """The request names a file, model, recipe or dataset that does not exist."""


class PromptRefused(InvalidInput):
    """The engine cannot answer this conversation: it is longer than the context, for instance."""


class NotFound(TunesmithError):
    """There is no record with that id."""


class Conflict(TunesmithError):
    """The record exists, but its state does not allow what was asked."""


class Unauthenticated(TunesmithError):
    """No API key was sent, or it is unknown or revoked."""


class Forbidden(TunesmithError):
    """The key lacks the scope, or the path lies outside the allowed roots."""


class TooLarge(TunesmithError):
    """Something exceeds a size limit from the settings."""


class Busy(TunesmithError):
    """As many wait for it as may; later there is room."""


class OutOfSpace(TunesmithError):
    """The disk that holds the state folder is full; nothing stored was harmed."""


class Unavailable(TunesmithError):
    """The service cannot take this now: it is shutting down, or its journal stopped after a failed fsync."""


class WorkerFailed(TunesmithError):
    """A worker process that was called for an answer ended without one."""


class JournalDamaged(TunesmithError):
    """A journal holds a line that does not check out; starting would risk losing records."""


class StateFolderIncomplete(TunesmithError):
    """Records that were on disk are not there any more; starting would lose what belongs to them."""


class StateFolderUnusable(TunesmithError):
    """The state folder is owned by another server or user, or cannot be written."""


class SettingsInvalid(TunesmithError):
    """A setting has a wrong name, type or value."""
