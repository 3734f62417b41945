"""Mending a damaged journal. The server must not be running on it: hold the state lock while repairing."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from tunesmith.failpoints import FAILPOINTS
from tunesmith.files import sync_folder
from tunesmith.journal.lines import LostLines, last_seq_of, lost_lines
from tunesmith.journal.quarantine import quarantine_name
from tunesmith.journal.verify import scan, verify
from tunesmith.records import Clock, utc_now


def repair(path: Path, *, clock: Clock = utc_now) -> Path:
    """Make a journal that opens out of one that does not, and say where the original bytes are now.

    Every line that checks out is kept byte for byte, with its seq. Where lines are missing from the count, one line with
    the event ``repaired`` and no id takes their place and names the first and the last seq that were lost, so that the
    count goes on and the loss stays on record. Lines that do not check out, lines that repeat a seq already passed, and
    a torn tail are left out. The damaged file stays, whole, as ``<name>.damaged-<time>``; that path is returned. A journal
    with nothing wrong is left alone, and its own path is returned.

    A lost line may have been the latest of its id: that id then goes back to the record before, or is gone.

    Raises:
        OSError: it cannot be read, or the disk has no room for a second copy; the journal is then as it was.
    """
    verdict = verify(path)
    if verdict.sound and not verdict.torn_bytes:
        return path
    mended = path.with_name(f".{path.name}.mended")
    try:
        with path.open("rb") as damaged, mended.open("wb") as new:
            _take_over_owner(damaged, new)
            _copy_sound_lines(damaged, new, clock())
            new.flush()
            os.fsync(new.fileno())
        kept = quarantine_name(path, "damaged", clock())
        FAILPOINTS.hit("repair.before_link")
        # A second name first, then the exchange: at no moment is the journal's own name missing, which a server
        # starting then would take for an empty journal.
        os.link(path, kept)
        sync_folder(path.parent)
        FAILPOINTS.hit("repair.before_rename")
        mended.replace(path)
    except OSError:
        mended.unlink(missing_ok=True)
        raise
    FAILPOINTS.hit("repair.after_rename")
    sync_folder(path.parent)
    return kept


def _take_over_owner(damaged: BinaryIO, new: BinaryIO) -> None:
    """An administrator may repair what the service must be able to write afterwards."""
    old = os.fstat(damaged.fileno())
    os.fchmod(new.fileno(), old.st_mode & 0o777)
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(new.fileno(), old.st_uid, old.st_gid)


def _copy_sound_lines(damaged: BinaryIO, new: BinaryIO, at: datetime) -> None:
    last = 0
    for scanned in scan(damaged):
        if scanned.entry is None:
            continue
        if scanned.entry.seq > last + 1:
            new.write(lost_lines(LostLines(lost_from=last + 1, lost_through=scanned.entry.seq - 1), at))
        new.write(scanned.line + b"\n")
        last = last_seq_of(scanned.entry)
