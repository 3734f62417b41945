"""The lock on a state folder: one folder, one server.

It is an flock on the folder itself, so the kernel lets go of it when the process ends, however it ends, and deleting a file
does not. The file ``state/lock`` tells people who holds it and is locked as well, which keeps out servers of versions that
knew only the file; whether the lock is held is never read from its content.
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
import structlog

from tunesmith.errors import StateFolderUnusable
from tunesmith.records import Clock, utc_now

_log = structlog.get_logger()

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


_decode_holder = msgspec.json.Decoder(Holder).decode


class StateLock:
    """The lock, held. Programs started by this process do not inherit it."""

    def __init__(self, path: Path, descriptors: tuple[int, ...], holder: Holder) -> None:
        self.path = path
        self._descriptors = descriptors
        """The file's, and before it the folder's where its file system can lock one."""
        self._holder = holder

    @classmethod
    def acquire(cls, path: Path, address: str | None = None, *, clock: Clock = utc_now) -> StateLock:
        """Take the lock, making the folder if there is none. Returns or raises within two seconds.

        Args:
            path: the lock file; the folder that is locked is the one it lies in.
            address: where the server listens, if it does already.
            clock: what time it is.

        Raises:
            StateFolderUnusable: another server holds it, the folder cannot be written, or it belongs to somebody else.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_foreign(path.parent)
            held = _lock(path)
            lock = cls(path, held, Holder(pid=os.getpid(), started_at=clock(), address=address))
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
        """Let go; a second call does nothing."""
        while self._descriptors:
            *rest, descriptor = self._descriptors
            self._descriptors = tuple(rest)
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _describe(self) -> None:
        content = msgspec.json.encode(self._holder) + b"\n"
        file = self._descriptors[-1]
        os.ftruncate(file, 0)
        os.pwrite(file, content, 0)


def holder(path: Path) -> Holder | None:
    """Who holds the lock; None when nobody does. Who it is may be unknown: somebody may have deleted the file."""
    if _is_locked(path.parent, os.O_DIRECTORY) or _is_locked(path, 0):
        return _described(path)
    return None


def _is_locked(path: Path, flags: int) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system that cannot lock folders
    finally:
        os.close(descriptor)
    return False


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


def _lock(path: Path) -> tuple[int, ...]:
    """The descriptors that hold the lock; the file's comes last."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    folder = _lock_folder(path, deadline)
    held = () if folder is None else (folder,)
    try:
        return (*held, _lock_file(path, deadline))
    except BaseException:
        for descriptor in held:
            os.close(descriptor)
        raise


def _lock_folder(path: Path, deadline: float) -> int | None:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while not _taken(descriptor):
            _wait_or_refuse(path, deadline)
    except OSError as error:
        os.close(descriptor)
        # Over NFS a lock needs a descriptor that can be written to, which a folder's never can.
        _log.warning("state_folder_cannot_be_locked", folder=str(path.parent), reason=error.strerror, instead=path.name)
        return None
    except StateFolderUnusable:
        os.close(descriptor)
        raise
    return descriptor


def _lock_file(path: Path, deadline: float) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if _taken(descriptor) and _still_there(path, descriptor):
                return descriptor
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        _wait_or_refuse(path, deadline)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_or_refuse(path: Path, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise StateFolderUnusable(
            f"in use by another server ({_described(path)})",
            where=str(path.parent),
            mend="stop that server, or choose another folder with `--state-dir`",
        )
    time.sleep(_RETRY_SECONDS)


def _still_there(path: Path, descriptor: int) -> bool:
    """Somebody may have deleted the file between our open and our lock; a lock on a file without a name guards nothing."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _described(path: Path) -> Holder:
    try:
        return _decode_holder(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return Holder()  # deleted, or caught while it was being written
