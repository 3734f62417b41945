"""Whether a state folder is whole, before anything in it is opened; and that only its owner can read it.

A journal that is missing or older than it was would make a server forget runs, open itself to everybody, or take uploads
for leftovers. So it does not start; `tunesmith state accept` is how a person says that the loss is known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import structlog

from tunesmith.errors import Fault, MissingReference, StateFolderIncomplete
from tunesmith.files import set_aside
from tunesmith.journal import Watermarks, watermark_of
from tunesmith.paths import StatePaths
from tunesmith.records import Clock

_log = structlog.get_logger()
_MOST_NAMED = 20
_MEND = "restore it from a backup, or start without what is lost: `tunesmith state accept {}`"


def refuse_incomplete(paths: StatePaths, clock: Clock) -> None:
    """Stop a start that would lose records. Changes nothing.

    Raises:
        StateFolderIncomplete: naming every journal that is missing, emptied or older than it was.
        JournalDamaged: the note of what there should be cannot be read.
    """
    faults = missing(paths, Watermarks(paths.watermarks, clock))
    if faults:
        raise StateFolderIncomplete(
            "records are missing, and a server that started would lose what belongs to them",
            where=str(paths.root),
            mend="nothing was changed",
            faults=tuple(faults),
        )


def missing(paths: StatePaths, watermarks: Watermarks) -> list[Fault]:
    """What the folder lacks. Where nothing is noted, its other files tell which journals there must have been."""
    if watermarks.read() is not None:
        return watermarks.faults()
    absent = [path for path in paths.journals if not path.exists()]
    return [
        Fault(message="the journal is missing", where=str(path), mend=_MEND.format(path.name))
        for path in absent
        if (traces := _TRACES.get(path.name)) is not None and traces(paths)
    ]


def refuse_without_state(paths: StatePaths) -> None:
    """Stop a command that is about a state folder where there is none. Changes nothing. Raises MissingReference."""
    if not any(path.exists() for path in (*paths.journals, paths.watermarks)):
        raise MissingReference(
            "holds no state" if paths.root.is_dir() else "is not a folder",
            where=str(paths.root),
            mend="name the state folder with --state-dir",
        )


def refuse_unrecorded_runs(paths: StatePaths, known: Container[str]) -> None:
    """Stop a start on an older copy of ``runs.jsonl`` that nothing else gives away.

    Raises:
        StateFolderIncomplete: there are folders of runs that were started and are not on record.
    """
    found = [] if _was_repaired(paths.runs) else list(_started_runs(paths, known))
    if found:
        named = ", ".join(found[:_MOST_NAMED]) + (", ..." if len(found) > _MOST_NAMED else "")
        raise StateFolderIncomplete(
            f"the journal is older than it was: it knows nothing of {len(found)} runs that were started: {named}",
            where=str(paths.runs),
            mend=_MEND.format(paths.runs.name) + ", which moves their folders to set-aside/",
        )


def accept(
    paths: StatePaths, names: tuple[str, ...], clock: Clock, known_runs: Callable[[], Container[str]]
) -> list[str]:
    """Take these journals as they are from now on; answers what was done, a sentence each. The caller holds the lock.

    ``known_runs`` reads which runs are on record.

    Raises:
        OSError: it could not be noted, or a folder not be moved.
    """
    watermarks = Watermarks(paths.watermarks, clock)
    if paths.watermarks.name in names and paths.watermarks.exists():
        set_aside(paths.watermarks, paths.root)
    # Where nothing is noted, all that is there is taken as it is: from then on, something is.
    taken = [path for path in paths.journals if path.name in names or watermarks.read() is None]
    marks = {path.name: watermark_of(path) for path in taken if path.exists()}
    watermarks.note(marks, forget=[path.name for path in taken])
    done = [
        f"{name}: taken as it is, with {marks[name].seq} lines" if name in marks else f"{name}: begins anew"
        for name in names
        if name != paths.watermarks.name
    ]
    return done + (_set_runs_aside(paths, known_runs()) if paths.runs.name in names else [])


def _set_runs_aside(paths: StatePaths, known: Container[str]) -> list[str]:
    return [
        f"{run_id}: not on record; its folder is now {set_aside(paths.run(run_id).folder, paths.root)}"
        for run_id in list(_started_runs(paths, known))
    ]


def note_repaired(paths: StatePaths, originals: Mapping[Path, Path], clock: Clock) -> None:
    """After a repair: lines that were lost to damage are known to be lost. A journal that had been too short before is
    still refused.

    Args:
        paths: the state folder's; the caller holds its lock.
        originals: each journal that was mended, with the file as it was.
        clock: what time it is.
    """
    watermarks = Watermarks(paths.watermarks, clock)
    noted = watermarks.read() or {}
    for journal, original in originals.items():
        before, now = noted.get(journal.name), watermark_of(journal)
        if before is not None and (original.stat().st_size >= before.bytes or now.seq >= before.seq):
            watermarks.note({journal.name: now})


def _started_runs(paths: StatePaths, known: Container[str]) -> Iterator[str]:
    """Runs that were started and have no record. A run is on record before anything of it starts, so the record was lost;
    a folder without attempts is what a crash leaves of a run that was just being created.
    """
    if not paths.runs_folder.is_dir():
        return
    with os.scandir(paths.runs_folder) as entries:
        for entry in entries:
            ours = entry.name.startswith("run_") and entry.name not in known
            if ours and entry.is_dir(follow_symlinks=False) and Path(entry.path, "attempts").is_dir():
                yield entry.name


def _was_repaired(journal: Path) -> bool:
    """Whether lines of it were given up by a person already."""
    return any(journal.parent.glob(f"{journal.name}.damaged-*"))


def _holds(journal: Path) -> bool:
    return journal.exists() and journal.stat().st_size > 0


def _has_entry(folder: Path, pattern: str) -> bool:
    return next(folder.glob(pattern), None) is not None


# What shows that a journal was there, in folders of versions that noted nothing. The first three exist since the first.
_TRACES: Mapping[str, Callable[[StatePaths], bool]] = MappingProxyType(
    {
        "keys.jsonl": lambda paths: any(_holds(path) for path in paths.journals),
        "experiments.jsonl": lambda paths: _holds(paths.runs),
        "runs.jsonl": lambda paths: _has_entry(paths.runs_folder, "run_*/attempts"),
        "datasets.jsonl": lambda paths: _holds(paths.uploads),
        "uploads.jsonl": lambda paths: _has_entry(paths.uploads_folder, "upl_*/data.*"),
        "deployments.jsonl": lambda paths: _has_entry(paths.deployments_folder, "dep_*/attempts"),
        "uploads_in_parts.jsonl": lambda paths: _has_entry(paths.parts_folder, "upload_*/part_*"),
        "batches.jsonl": lambda paths: _has_entry(paths.batches_folder, "batch_*"),
        "train_configs.jsonl": lambda paths: _has_entry(paths.train_configs_folder, "tc_*.yaml"),
    }
)


def tighten(paths: StatePaths) -> None:
    """Let only the owner read the folder: whatever is below it cannot be reached past it, however it was made."""
    changed: list[str] = []
    with os.scandir(paths.root) as entries:
        below = [Path(entry.path) for entry in entries if not entry.is_symlink()]
    for path in (paths.root, *below):
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            try:
                path.chmod(mode & 0o700)
            except OSError as error:
                _log.warning("state_folder_readable_by_others", path=str(path), reason=error.strerror)
                return
            changed.append(path.name)
    if changed:
        _log.info("state_folder_closed_to_others", folder=str(paths.root), changed=changed)
