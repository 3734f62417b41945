"""What a training function can resume from: a copy of what it reported, complete and listed like every other checkpoint.

A copy, because the function may write over its file in the next epoch. What is in it is the function's own affair.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.contract.manifest import KEEP, MANIFEST
from tunesmith.errors import InvalidInput
from tunesmith.files import opened_folder, remove_folder, sync_folder, write_atomically

_PREFIX = "checkpoint-"
_KEPT = 2


class _Reported(msgspec.Struct, frozen=True):
    reported: str
    """The name of what the function reported, within the checkpoint."""


_decode_reported = msgspec.json.Decoder(_Reported).decode


def keep(reported: str, folder: Path, *, idx: int, facts: Mapping[str, Any]) -> Path:
    """Copy a file or folder into a checkpoint of its own; the manifest comes last, with ``facts``. Older ones go.

    Raises:
        InvalidInput: there is nothing at that path.
        OSError: there is no room; what was complete before stays.
    """
    source = Path(reported)
    into = folder / f"{_PREFIX}{idx}"
    if into.exists():
        _remove(into)
    into.mkdir(parents=True)
    try:
        if source.is_dir():
            shutil.copytree(source, into / source.name)
        else:
            shutil.copyfile(source, into / source.name)
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{reported!r} is not there", where="result.checkpoint", mend="write it, close it, then report it"
        ) from error
    files = sorted(path for path in into.rglob("*") if path.is_file())
    for path in files:
        _sync(path)
    manifest = {
        "kind": "checkpoint",
        "step": idx,
        "created_at": datetime.now(UTC),
        "reported": source.name,
        **facts,
        "files": [{"path": str(path.relative_to(into)), "bytes": path.stat().st_size} for path in files],
    }
    write_atomically(into / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    sync_folder(folder)
    _prune(folder)
    return into


def reported_in(checkpoint: str | None) -> str | None:
    """The path to resume from, in a checkpoint's folder; None without one."""
    if not checkpoint:
        return None
    manifest = _decode_reported((Path(checkpoint) / MANIFEST).read_bytes())
    return str(Path(checkpoint) / manifest.reported)


def _prune(folder: Path) -> None:
    complete = [path for path in folder.glob(f"{_PREFIX}*") if (path / MANIFEST).exists() and not path.is_symlink()]
    for path in sorted(complete, key=lambda path: int(path.name.removeprefix(_PREFIX)))[:-_KEPT]:
        if not (path / KEEP).exists():
            _remove(path)


def _remove(checkpoint: Path) -> None:
    """As far as it can be: what is in the way of this must not end a training."""
    run, folder, aside = checkpoint.parent.parent, checkpoint.parent.name, f".removed-{checkpoint.name}"
    with suppress(OSError):  # of a removal that was cut short
        remove_folder(run, folder, aside)
    with suppress(OSError), opened_folder(run, folder) as parent:
        # Aside first, so that what is left of a removal never looks complete.
        os.rename(checkpoint.name, aside, src_dir_fd=parent, dst_dir_fd=parent)
        remove_folder(run, folder, aside)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
