"""The folder that a task is promised, below the finetuned folder: named by the model, the time and the task."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tunesmith.errors import Conflict, OutOfSpace
from tunesmith.files import NO_ROOM
from tunesmith.finetune.publish import MODEL


def make_place(folder: Path, task_id: str, now: datetime) -> Path:
    """Make it, with the empty folder for the model. Raises Conflict or OutOfSpace."""
    place = folder / f"{now:%Y%m%d%H%M%S}_{task_id}"
    try:
        (place / MODEL).mkdir(parents=True)
    except FileExistsError as error:
        raise Conflict(
            f"task {task_id} was begun in this very second", where="task_id", mend="wait for it, or name another"
        ) from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise OutOfSpace("no room for the output", where=str(place), mend="free some space") from error
        raise
    return place


def name_of(model: str) -> str:
    """What a model is called below the finetuned folder: the last part of its reference."""
    last = model.rstrip("/").rpartition("/")[2]
    return "".join(letter if letter.isalnum() or letter in "_.-" else "_" for letter in last).lstrip(".-")[:100]
