"""The lock on a state folder: one folder, one server.

It is an flock on ``state/lock``, so the kernel lets go of it when the process ends, however it ends. The file's content
only tells people who holds it; whether it is held is never read from there.
"""

from __future__ import annotations

import fcntl
import os
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from tunesmith.errors import StateFolderUnusable
from tunesmith.records import Clock, utc_now

# `holder` takes the lock for a moment to see whether it is free; a server that starts just then waits this long.
_PATIENCE_SECONDS = 0.5
_RETRY_SECONDS = 0.02


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the lock, as far as the file tells."""

    pid: int | None = None
    started_at: datetime | None = None
    address: str | None = None

    def __str__(self) -> str:
        return f"pid {self.pid or 'unknown'}" + (f" at {self.address}" if self.address else "")


class StateLock:
    """The lock, held. Programs started by this process do not inherit it."""

    def __init__(self, path: Path, descriptor: int, holder: Holder) -> None:
        self.path = path
        self._descriptor = descriptor
        self._holder = holder

    @classmethod
    def acquire(cls, path: Path, address: str | None = None, *, clock: Clock = utc_now) -> StateLock:
        """Take the lock, making the folder if there is none. Returns or raises within a second.

        Raises:
            StateFolderUnusable: another server holds it, the folder cannot be written, or it belongs to somebody else.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(path.parent)
            descriptor = _lock(path)
            lock = cls(path, descriptor, Holder(pid=os.getpid(), started_at=clock(), address=address))
            lock._describe()
        except OSError as error:
            raise StateFolderUnusable(
                f"cannot be written: {error.strerror}",
                where=str(path.parent),
                mend="make it writable for this user, or choose another folder with `--state-dir`",
            ) from error
        return lock

    def set_address(self, address: str) -> None:
        """Tell where the server listens, once it does."""
        self._holder = msgspec.structs.replace(self._holder, address=address)
        self._describe()

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _describe(self) -> None:
        content = msgspec.json.encode(self._holder) + b"\n"
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)


def holder(path: Path) -> Holder | None:
    """Who holds the lock; None when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _described(descriptor)
    finally:
        os.close(descriptor)
    return None


def _refuse_foreign(folder: Path) -> None:
    owner = folder.stat().st_uid
    # Root may: in containers it commonly serves a folder that was mounted from a user's home.
    if os.geteuid() not in (owner, 0):
        raise StateFolderUnusable(
            f"belongs to user {owner}, and this server runs as user {os.geteuid()}",
            where=str(folder),
            mend=f"run it as user {owner}, change the owner, or choose another folder with `--state-dir`",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StateFolderUnusable(
            "is read-only", where=str(folder), mend="make it writable, or choose another folder with `--state-dir`"
        )


def _lock(path: Path) -> int:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _still_there(path, descriptor):
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                other = _described(descriptor)
                os.close(descriptor)
                raise StateFolderUnusable(
                    f"in use by another server ({other})",
                    where=str(path.parent),
                    mend="stop that server, or choose another folder with `--state-dir`",
                ) from None
        os.close(descriptor)
        time.sleep(_RETRY_SECONDS)


def _still_there(path: Path, descriptor: int) -> bool:
    """Somebody may have deleted the file between our open and our lock; a lock on a file without a name guards nothing."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _described(descriptor: int) -> Holder:
    try:
        return msgspec.json.decode(os.pread(descriptor, 4096, 0), type=Holder)
    except msgspec.DecodeError:
        return Holder()  # caught while it was being written
