"""Reading the manifest of a checkpoint in the folder of a run, which may put anything there; see ``contract.manifest``."""

from __future__ import annotations

from pathlib import Path

from tunesmith.contract import manifest
from tunesmith.contract.manifest import Manifest
from tunesmith.files import read_regular

_MOST_BYTES = 4 * 1024 * 1024


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a complete checkpoint; None when it is missing, unreadable, or a file it lists is not whole.

    Raises:
        OSError: too many files are open, or the disk is failing: whether it is complete cannot be said.
    """
    return manifest.read_manifest(folder, lambda path: read_regular(path, _MOST_BYTES))
