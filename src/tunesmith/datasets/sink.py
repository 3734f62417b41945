"""One uploaded file on its way to the disk: written as a part file, hashed on the way, and given its name when whole.

Everything in here blocks: it is called from threads.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path

from tunesmith.failpoints import FAILPOINTS
from tunesmith.files import sync_folder

PART = ".part"
"""What the name of a file ends with that is still coming in."""


class Sink:
    """A folder of its own with one file in it. After ``commit`` the file is whole and durable; otherwise ``discard`` it."""

    def __init__(self, folder: Path, stored_name: str) -> None:
        self.stored_name = stored_name
        self._folder = folder
        self._final = folder / stored_name
        self._part = folder / f".{stored_name}{PART}"
        self._descriptor = -1
        self._hash = hashlib.sha256()
        # A server that has to stop does not wait for a thread that writes: only one at a time touches the descriptor.
        self._turn = threading.Lock()
        self._discarded = False
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal digits."""
        return self._hash.hexdigest()

    def open(self) -> None:
        """Raises OSError: the disk is full or the folder cannot be written."""
        with self._turn:
            if not self._discarded:
                self._folder.mkdir(mode=0o700)
                self._descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, content: bytes | bytearray) -> None:
        """Raises OSError, as ``open`` does."""
        FAILPOINTS.hit("upload.before_write")
        with self._turn, memoryview(content) as view:
            written = 0
            while written < len(view):
                written += os.write(self._descriptor, view[written:])
            self._hash.update(view)
        self.bytes += len(content)

    def commit(self) -> None:
        """Make the bytes durable, then the name, then the folder. Raises OSError."""
        with self._turn:
            FAILPOINTS.hit("upload.before_fsync")
            os.fsync(self._descriptor)
            self._close()
            FAILPOINTS.hit("upload.before_rename")
            self._part.replace(self._final)
            FAILPOINTS.hit("upload.after_rename")
            sync_folder(self._folder)
            sync_folder(self._folder.parent)

    def discard(self) -> None:
        """Leave nothing behind."""
        with self._turn:
            self._discarded = True
            self._close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
