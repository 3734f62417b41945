"""The parts of large files on the disk: each is written beside its place, and given its name when it is whole.

Everything in here blocks, but ``content``: it is called from threads. Which parts belong together is not known here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import anyio
import anyio.to_thread

from tunesmith.errors import OutOfSpace
from tunesmith.failpoints import FAILPOINTS
from tunesmith.files import NO_ROOM, open_regular, sync_folder

_T = TypeVar("_T")
_COMING_IN = ".coming"
"""What the name of a part ends with that is not whole."""
_BLOCK = 1024 * 1024
_THREADS = 4


class Digest(Protocol):
    """A hash that goes on."""

    def update(self, content: bytes, /) -> None: ...


class Part:
    """A part that is coming in."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._beside = place.with_name(f".{place.name}{_COMING_IN}")
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Raises OutOfSpace."""
        with room():
            self._place.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._file = os.fdopen(descriptor, "wb", buffering=0)

    def write(self, content: bytes | bytearray) -> None:
        """Raises OutOfSpace."""
        assert self._file is not None
        FAILPOINTS.hit("part.before_write")
        with room(), memoryview(content) as view:
            written = 0
            while written < len(view):
                written += self._file.write(view[written:]) or 0

    def sync(self) -> None:
        """Its bytes are on the disk after this, though not under its name. Raises OutOfSpace."""
        assert self._file is not None
        FAILPOINTS.hit("part.before_fsync")
        with room():
            os.fsync(self._file.fileno())
            self._file.close()

    def commit(self) -> None:
        """Give it its name. Raises OutOfSpace."""
        FAILPOINTS.hit("part.before_rename")
        with room():
            self._beside.replace(self._place)
            FAILPOINTS.hit("part.after_rename")
            sync_folder(self._place.parent)
            sync_folder(self._place.parent.parent)

    def discard(self) -> None:
        """Leave nothing behind of one that has no name yet."""
        if self._file is not None:
            self._file.close()
        self._beside.unlink(missing_ok=True)


class PartFiles:
    """The folders of all uploads in parts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Few and their own: a slow disk must not take the threads of everybody else.
        self._threads = anyio.CapacityLimiter(_THREADS)

    def new(self, upload_id: str, part_id: str) -> Part:
        return Part(self._folder / upload_id / part_id)

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Whatever blocks on the disk of the parts."""
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    def sizes(self, upload_id: str) -> dict[str, int]:
        """Bytes of each part that is here, by its id."""
        try:
            with os.scandir(self._folder / upload_id) as entries:
                return {one.name: one.stat(follow_symlinks=False).st_size for one in entries if _is_whole(one)}
        except FileNotFoundError:
            return {}

    async def content(self, upload_id: str, part_ids: Sequence[str], digest: Digest) -> AsyncIterator[bytes]:
        """The bytes of these parts, one after the other; all of them go through ``digest``, too."""
        for part_id in part_ids:
            path = self._folder / upload_id / part_id
            with await self.in_thread(partial(_opened, path)) as file:
                while block := await self.in_thread(partial(_read, file, digest)):
                    yield block

    def remove(self, upload_id: str) -> None:
        """All parts of an upload, whole or not."""
        shutil.rmtree(self._folder / upload_id, ignore_errors=True)

    def sweep(self, is_pending: Callable[[str], bool]) -> None:
        """After a start: remove the parts of uploads that take none any more, and what a crash has cut short of the others."""
        for folder in self._folders():
            if not is_pending(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for beside in folder.glob(f".*{_COMING_IN}"):
                beside.unlink(missing_ok=True)

    def _folders(self) -> Iterator[Path]:
        yield from (entry for entry in list(self._folder.glob("upload_*")) if entry.is_dir() and not entry.is_symlink())


def _is_whole(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(open_regular(path), "rb", buffering=0)


def _read(file: BinaryIO, digest: Digest) -> bytes:
    block = file.read(_BLOCK)
    digest.update(block)
    return block


@contextmanager
def room() -> Iterator[None]:
    """Say of a full disk what it means here."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OutOfSpace(
            "the state disk is full; nothing of the part was kept",
            where="data",
            mend="free some space on the disk of the state folder, or delete files, then send the part again",
        ) from error
