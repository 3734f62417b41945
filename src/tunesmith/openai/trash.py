"""Where folders go that are being deleted: out of the way at once, so that nobody finds half of one. What a crash has left there
is removed at the next start, without looking anywhere else.

All of it blocks: it is called from threads.
"""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from tunesmith.failpoints import FAILPOINTS


class Trash:
    """A folder below the state folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def remove(self, folder: Path) -> None:
        """Remove it with all that is in it; a link is removed, and not what it leads to.

        Raises:
            OSError: it is not there, or cannot be moved away; nothing was removed.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        gone = self._folder / secrets.token_hex(8)
        try:
            folder.rename(gone)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Runs lie on another disk. What a crash leaves beside it stays there.
            gone = folder.with_name(f".{folder.name}.deleted.{gone.name}")
            folder.rename(gone)
        FAILPOINTS.hit("trash.before_removal")
        _remove(gone)

    def leftovers(self) -> list[Path]:
        """What lies in it: before anybody is served, that is of earlier servers."""
        return list(self._folder.iterdir()) if self._folder.is_dir() else []

    def empty(self, leftovers: Iterable[Path], *, between: Callable[[], object] = lambda: None) -> None:
        """Remove what ``leftovers`` has found."""
        for one in leftovers:
            between()
            _remove(one)


def _remove(gone: Path) -> None:
    if gone.is_symlink() or not gone.is_dir():
        gone.unlink(missing_ok=True)
    else:
        shutil.rmtree(gone, ignore_errors=True)
