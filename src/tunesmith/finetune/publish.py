"""What the finetune door promises of a built-in recipe: its model as ``model_files`` and its log, below the finetuned folder.

The run's own folder stays the truth. Large files are linked where the file system allows it, which takes no room; small
ones are copied, so that whoever edits one here changes nothing there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tunesmith.files import sync_folder

MODEL = "model_files"
LOG = "finetune.log"
_LARGE_BYTES = 1024 * 1024


def show_log(log: Path, place: Path) -> None:
    """Let the log of a run be seen in ``place`` while it grows. May be repeated.

    Raises:
        OSError: it cannot be.
    """
    shown = place / LOG
    log.touch()  # the run may not have begun; whoever writes to it only ever appends
    try:
        os.link(log, shown)
    except FileExistsError:
        return
    except OSError:
        shown.symlink_to(log)  # another file system


def publish(output: Path, place: Path) -> None:
    """Put a finished model into ``place``, whole or not at all. May be repeated.

    Raises:
        OSError: there is no room, or it cannot be written.
    """
    model, beside = place / MODEL, place / f".{MODEL}.partial"
    if model.is_dir() and any(model.iterdir()):
        return
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(output, beside, copy_function=_link_or_copy)
    beside.rename(model)  # over the empty folder, in one step
    sync_folder(place)


def _link_or_copy(source: str, target: str) -> None:
    if Path(source).stat().st_size >= _LARGE_BYTES:
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
