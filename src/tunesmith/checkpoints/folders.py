"""Checkpoint folders on the disk: which are complete, keeping one, removing one. Never outside of the run's own folder.

A run may put a link anywhere in its folder, also in the place of the folder itself. Whatever is reached through one is
not the run's, so it is neither listed nor touched.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tunesmith.checkpoints.manifest import read_manifest
from tunesmith.contract.manifest import KEEP, MANIFEST, Manifest
from tunesmith.files import opened_folder, remove_folder
from tunesmith.records import Checkpoint

_FOLDER = "checkpoints"
_NO_FOLDER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def complete_in(runs: Path, run_id: str) -> dict[str, Manifest]:
    """The complete checkpoints of a run by path, in order of step.

    Raises:
        OSError: it cannot be said, for a reason that lies with the machine.
    """
    try:
        with opened_folder(runs, run_id, _FOLDER) as folder, os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in _NO_FOLDER:
            return {}
        raise
    base = runs.resolve() / run_id / _FOLDER
    # What begins with a full stop is being written or removed.
    manifests = {str(base / name): read_manifest(base / name) for name in found if not name.startswith(".")}
    complete = [(path, manifest) for path, manifest in manifests.items() if manifest is not None]
    return dict(sorted(complete, key=lambda item: (item[1].step, item[1].created_at)))


def keep(runs: Path, checkpoint: Checkpoint) -> bool:
    """Tell the trainer, which prunes old ones, to leave it alone; False: it is not there any more."""
    try:
        with opened_folder(runs, *_names(runs, checkpoint)) as folder:
            os.close(os.open(KEEP, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=folder))
    except FileExistsError:
        return True
    except OSError as error:
        if error.errno in _NO_FOLDER:
            return False
        raise
    return True


def make_incomplete(runs: Path, checkpoint: Checkpoint) -> None:
    """Take its manifest away, so that what is left of a removal that is cut short never looks complete. Raises OSError."""
    with opened_folder(runs, *_names(runs, checkpoint)) as folder:
        os.unlink(MANIFEST, dir_fd=folder)


def remove(runs: Path, checkpoint: Checkpoint) -> None:
    """Remove the folder with all that is in it. Raises OSError."""
    remove_folder(runs, *_names(runs, checkpoint))


def _names(runs: Path, checkpoint: Checkpoint) -> tuple[str, str, str]:
    path = Path(checkpoint.path)
    if path.parent != runs.resolve() / checkpoint.run_id / _FOLDER:
        raise OSError(errno.ENOENT, "it lies outside of its run's folder", checkpoint.path)
    return (checkpoint.run_id, _FOLDER, path.name)
