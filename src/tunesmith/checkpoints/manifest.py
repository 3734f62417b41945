"""Reading the manifest of a checkpoint folder: what it holds, and whether all of it is there."""

from __future__ import annotations

import errno
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tunesmith.files import SHORTAGE, read_regular

NAME = "manifest.json"
KEEP = "KEEP"
"""A file of this name in a checkpoint tells its trainer, which prunes old ones, to leave it alone."""


_MOST_BYTES = 4 * 1024 * 1024
_NOT_ITS_FAULT = SHORTAGE | {errno.EIO}
"""Errors of the machine: they say nothing of the checkpoint."""


class ManifestFile(msgspec.Struct, frozen=True):
    """A file that belongs to the checkpoint."""

    path: str
    bytes: int


class ManifestOrigin(msgspec.Struct, frozen=True):
    """What the checkpoint was trained from, as far as the control plane needs it."""

    base_model: str | None = None
    template_sha256: str | None = None
    data_sha256: str | None = None
    config: dict[str, Any] = {}
    """The resolved config."""


class Manifest(msgspec.Struct, frozen=True):
    """The part of a manifest that the control plane reads; foreign recipes may write no more than this."""

    step: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    created_at: datetime
    kind: str = "checkpoint"
    epoch: float | None = None
    metrics: dict[str, float | None] = {}
    files: tuple[ManifestFile, ...] = ()
    origin: ManifestOrigin = ManifestOrigin()

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a complete checkpoint; None when it is missing, unreadable, or a file it lists is not whole.

    Raises:
        OSError: too many files are open, or the disk is failing: whether it is complete cannot be said.
    """
    try:
        manifest = msgspec.json.decode(read_regular(folder / NAME, _MOST_BYTES), type=Manifest)
        whole = all((folder / file.path).stat().st_size == file.bytes for file in manifest.files)
    except OSError as error:
        if error.errno in _NOT_ITS_FAULT:
            raise
        return None
    except (ValueError, RecursionError, msgspec.DecodeError):
        return None
    return manifest if whole else None
