"""What the finetune door promises of a built-in recipe: its model as ``model_files`` and its log, below the finetuned folder.

The run's own folder stays the truth. How files come to be there is in ``tunesmith.publish``.
"""

from __future__ import annotations

import os
from pathlib import Path

from tunesmith.publish import publish_folder

MODEL = "model_files"
LOG = "finetune.log"


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
    model = place / MODEL
    if model.is_dir() and any(model.iterdir()):
        return
    publish_folder(output, model, place / f".{MODEL}.partial")
