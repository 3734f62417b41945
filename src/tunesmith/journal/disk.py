"""Appending whole batches to one file: a batch is on disk, or it is not in the file, or the file takes no more.

It knows bytes only. It runs in the journal's writer thread, one batch at a time.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

from tunesmith.errors import OutOfSpace, Unavailable
from tunesmith.failpoints import FAILPOINTS


class Disk(Protocol):
    """The three calls that can fail in ways only a disk can; tests pass one that fails on demand."""

    def write(self, descriptor: int, content: memoryview) -> int: ...

    def sync(self, descriptor: int) -> None: ...

    def cut(self, descriptor: int, length: int) -> None: ...


class _LocalDisk:
    def write(self, descriptor: int, content: memoryview) -> int:
        return os.write(descriptor, content)

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def cut(self, descriptor: int, length: int) -> None:
        os.ftruncate(descriptor, length)


LOCAL_DISK: Disk = _LocalDisk()

# EFBIG is what a file size limit (ulimit -f) answers; Python ignores the SIGXFSZ that comes with it.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class AppendFile:
    """A file that grows by whole, synced batches."""

    def __init__(self, path: Path, descriptor: int, length: int, disk: Disk) -> None:
        self.path = path
        self._descriptor = descriptor
        self._length = length
        self._disk = disk

    def commit(self, content: bytes) -> None:
        """Write and sync.

        Raises:
            OutOfSpace: nothing of ``content`` is left in the file, which can be written to again.
            Unavailable: what is on disk is not known any more. The caller must not write again: after a failed fsync
                the kernel may have dropped the pages, and a second fsync that succeeds would mean nothing.
        """
        FAILPOINTS.hit("journal.before_write")
        try:
            self._write(content)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise self._stopped("could not be written", error) from error
            self._cut_back()
            raise OutOfSpace(
                f"no room to write it down: {error.strerror}",
                where=str(self.path),
                mend="free space on the disk of the state folder; writing goes on by itself",
            ) from error
        FAILPOINTS.hit("journal.before_fsync")
        try:
            self._disk.sync(self._descriptor)
        except OSError as error:
            raise self._stopped("could not be synced to disk", error) from error
        FAILPOINTS.hit("journal.after_fsync")
        self._length += len(content)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, content: bytes) -> None:
        if FAILPOINTS.armed:
            middle = len(content) // 2
            self._write_all(memoryview(content)[:middle])
            FAILPOINTS.hit("journal.inside_write")
            self._write_all(memoryview(content)[middle:])
        else:
            self._write_all(memoryview(content))
        FAILPOINTS.hit("journal.after_write")

    def _write_all(self, content: memoryview) -> None:
        while content:
            written = self._disk.write(self._descriptor, content)
            if not written:
                raise OSError(errno.EIO, "the disk took no bytes")
            content = content[written:]

    def _cut_back(self) -> None:
        try:
            self._disk.cut(self._descriptor, self._length)
        except OSError as error:
            raise self._stopped("holds half a line that could not be cut away", error) from error

    def _stopped(self, what: str, error: OSError) -> Unavailable:
        return Unavailable(
            f"the journal {what} and takes no more writes: {error.strerror}",
            where=str(self.path),
            mend="check the disk (`dmesg`), then restart the server; it replays what is on disk",
        )
