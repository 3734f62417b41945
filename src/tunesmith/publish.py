"""Puts what a run made where a door has promised it: whole or not at all, and never over something that is there.

The run's own folder stays the truth. Large files are linked where the file system allows it, which takes no room; small
ones are copied, so that whoever edits one here changes nothing there. Links, pipes and devices are left out: they are not
what a run wrote. When something is published, and who is told, is not decided here.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from tunesmith.files import sync_folder

_LARGE_BYTES = 1024 * 1024


def publish_folder(output: Path, target: Path, beside: Path) -> None:
    """Put all files of ``output`` at ``target``, which may be an empty folder or not be there.

    Args:
        output: what a run made.
        target: where it is to be.
        beside: a name in the same folder for what is not whole yet. What is there under it goes.

    Raises:
        OSError: something is there already (``FileExistsError``, or its folder is not empty), there is no room, or it cannot
            be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _copy_all(output, beside)
        beside.rename(target)  # over an empty folder, in one step
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(target.parent)


def publish_file(file: Path, target: Path, beside: Path) -> None:
    """The same for one file. Raises FileExistsError where there is something, or another OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside.unlink(missing_ok=True)
    try:
        _link_or_copy(file, beside)
        _move_over_nothing(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(target.parent)


def _move_over_nothing(beside: Path, target: Path) -> None:
    try:
        os.link(beside, target)  # unlike a rename, it refuses what is there
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        beside.rename(target)


def is_published(output: Path, target: Path) -> bool:
    """Whether what ``output`` holds is at ``target`` already, as a crash may have left it: by names and sizes."""
    if output.is_file():
        return target.is_file() and target.stat().st_size == output.stat().st_size
    for folder, names in _folders_of(output):
        for name in names:
            path = target / folder.relative_to(output) / name
            if not path.is_file() or path.stat().st_size != (folder / name).stat().st_size:
                return False
    return target.is_dir()


def _copy_all(output: Path, into: Path) -> None:
    for folder, names in _folders_of(output):
        place = into / folder.relative_to(output)
        place.mkdir()
        for name in names:
            _link_or_copy(folder / name, place / name)
        sync_folder(place)


def _folders_of(output: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with the names of its regular files, from above."""
    for place, _, names in os.walk(output, onerror=_refuse):
        folder = Path(place)
        yield folder, sorted(name for name in names if stat.S_ISREG((folder / name).lstat().st_mode))


def _refuse(error: OSError) -> None:
    raise error


def _link_or_copy(source: Path, target: Path) -> None:
    if source.stat().st_size >= _LARGE_BYTES:
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)  # another file system
    else:
        shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
