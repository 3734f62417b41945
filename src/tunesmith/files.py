"""Writing whole small files so that a crash leaves either the old or the new one, never a half; reading and removing what
somebody else may have replaced by anything; and names that become paths.

Journals append and do not go through here; see ``journal/``.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.failpoints import FAILPOINTS

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json")
"""How files of rows are named."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a full disk answers; the last one is a file size limit's (``ulimit -f``)."""
SET_ASIDE = "set-aside"


SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What passes when others let go of descriptors or memory: it says nothing about the file that was asked for."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOT_BELOW = frozenset({"", ".", ".."})
_MOST_LEVELS = 100_000


def raise_shortage(error: OSError) -> None:
    """Raise it again if it is a shortage, where other errors mean that something is not there."""
    if error.errno in SHORTAGE:
        raise error


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600, step: str = "file") -> None:
    """Write ``content`` beside ``path``, fsync, rename over it, fsync the folder.

    Blocks on the disk: call it from a thread when on the event loop. ``step`` is what its failpoints are called.

    Raises:
        OSError: the disk is full or the folder cannot be written; ``path`` is then unchanged.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    FAILPOINTS.hit(f"{step}.before_write")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            FAILPOINTS.hit(f"{step}.before_fsync")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        FAILPOINTS.hit(f"{step}.before_rename")
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    FAILPOINTS.hit(f"{step}.after_rename")
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> int:
    """A descriptor to read ``path`` with, for files in folders that other programs write: never waits, follows no link.

    Only the last part of the path is held to that: a link among its folders is followed.

    Raises:
        OSError: there is none, it cannot be read, or it is a link (ELOOP), a folder, a FIFO, a socket or a device (EINVAL).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path, limit: int) -> bytes:
    """All of a small file that may have been replaced by something else, as ``open_regular`` opens it.

    Raises:
        OSError: as ``open_regular``, or it has more than ``limit`` bytes (EOVERFLOW).
    """
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EOVERFLOW, f"longer than {limit} bytes", str(path))
    return content


def data_files(place: Path) -> list[Path]:
    """The data files that a path stands for: itself, or what lies directly in a folder and is named like rows, by name.

    The workers' ``data.reader`` has the same rule. Raises OSError.
    """
    if not place.is_dir():
        return [place]
    named = (path for path in place.iterdir() if path.suffix.lower() in DATA_SUFFIXES and not path.name.startswith("."))
    return sorted((path for path in named if path.is_file()), key=lambda path: path.name)


@contextmanager
def opened_folder(root: Path, *names: str) -> Iterator[int]:
    """A descriptor of the folder ``root/names...``. No link is followed below ``root``; that itself may be one.

    Raises:
        OSError: a part is missing, or is a link or anything else than a folder (ELOOP, ENOTDIR).
    """
    descriptor = os.open(root, _FOLDER)
    try:
        for name in names:
            if name in _NOT_BELOW or "/" in name:
                raise OSError(errno.EINVAL, "not the name of something below a folder", name)
            below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def remove_folder(root: Path, *names: str) -> None:
    """Remove the folder ``root/names...`` with all that is in it, however deep. Links are removed, never followed.

    Whoever puts something new into it meanwhile makes it fail, and never makes it remove anything else.

    Raises:
        OSError: as ``opened_folder``, or something cannot be removed; what was removed until then is gone.
    """
    with opened_folder(root, *names) as folder:
        _empty(folder)
    with opened_folder(root, *names[:-1]) as parent:
        os.rmdir(names[-1], dir_fd=parent)


def _empty(folder: int) -> None:
    """Level by level: what lies deeper is moved up to the first level, so that no depth needs more descriptors."""
    moved, mine = 0, secrets.token_hex(8)
    for _ in range(_MOST_LEVELS):
        with os.scandir(folder) as entries:
            level = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        if not level:
            return
        for name, is_folder in level:
            if not is_folder:
                os.unlink(name, dir_fd=folder)
                continue
            below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            try:
                for deeper in os.listdir(below):  # noqa: PTH208  # a descriptor, not a path
                    os.rename(deeper, f".removing-{mine}-{moved}", src_dir_fd=below, dst_dir_fd=folder)
                    moved += 1
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=folder)


def set_aside(entry: Path, state: Path) -> Path:
    """Move a file or folder that nobody knows of to ``set-aside`` in the state folder, below the name of the folder that it
    was in; answers where it is now. Nothing is ever thrown away that a person may still want.

    Raises:
        OSError: it could not be moved; it is where it was.
    """
    folder = state / SET_ASIDE / entry.parent.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target, count = folder / entry.name, 1
    while target.is_symlink() or target.exists():
        count += 1
        target = folder / f"{entry.name}-{count}"
    entry.rename(target)
    return target


def place_of(name: str) -> Path | None:
    """The path that a name from a request stands for, links followed; None when no file can have that name."""
    try:
        return Path(name).resolve()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a NUL character
        return None
