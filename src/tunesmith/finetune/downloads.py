"""The folders of datasets that were fetched for built-in recipes: made, and removed at a start if no run ever came of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path

import msgspec
import structlog

from tunesmith.errors import OutOfSpace
from tunesmith.files import NO_ROOM, SET_ASIDE, read_regular, remove_folder
from tunesmith.paths import RunPaths, StatePaths
from tunesmith.records import Run, new_id

_log = structlog.get_logger()
_NAMES = re.compile(rb"dl_[0-9a-z]{26}")
RecordedRuns = Callable[[Container[str]], Iterable[Run]]
_LARGEST_CONFIG_BYTES = 64 * 1024 * 1024


def new_folder(paths: StatePaths) -> Path:
    """The path of a folder for one request; it is not there yet."""
    return paths.downloads / new_id("dl")


def make_folder(folder: Path) -> None:
    """Make it, if it is not there.

    Raises:
        OutOfSpace: there is no room for it.
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise OutOfSpace("no room for the download", where=str(folder), mend="free some space") from error
        raise


def leftovers(paths: StatePaths) -> set[str]:
    """The names of the folders that are there; before anybody is served they are those of earlier servers."""
    return _folders_in(paths.downloads, _NAMES)


def sweep(
    paths: StatePaths, found: set[str], recorded: RecordedRuns, *, between_runs: Callable[[], object] = lambda: None
) -> None:
    """Remove those folders that no run names, as a crash or a stop leaves them. Reads files: call it in a thread.

    A run keeps what it names in its record or its config, whatever its state. So does one that was started and whose record
    was lost: its folder may be put back. Folders of other names, and links, are nobody's concern here.

    Args:
        paths: the state folder's.
        found: what ``leftovers`` found at the start.
        recorded: the runs on record but for some. It is asked until there are no more, as runs may be created meanwhile.
            Reading ends when all folders are accounted for, so those that are likely to name one should come first.
        between_runs: called before each run; if it raises, as when the server stops, nothing is removed.
    """
    try:
        for name in sorted(_unused(paths, set(found), recorded, between_runs)):
            _remove(paths, name)
    except OSError as error:
        _log.warning("downloads_not_swept", reason=str(error))


def _unused(
    paths: StatePaths, unused: set[str], recorded: RecordedRuns, between_runs: Callable[[], object]
) -> set[str]:
    """Raises OSError where a config cannot be read that may name a folder."""
    known: set[str] = set()
    runs = iter(recorded(known))
    while unused and (run := next(runs, None) or next(runs := iter(recorded(known)), None)) is not None:
        between_runs()
        known.add(run.id)
        unused -= _named_in(msgspec.json.encode(run)) | _named_in(_config_of(paths.run(run.id)))
    for folder in _started_without_record(paths, known) if unused else ():
        unused -= _named_in(_config_of(folder))
    return unused


def _started_without_record(paths: StatePaths, known: set[str]) -> Iterator[RunPaths]:
    for parent in (paths.runs_folder, paths.root / SET_ASIDE / paths.runs_folder.name):
        for name in _folders_in(parent, re.compile(rb"run_.+")) - known:
            if (parent / name / "attempts").is_dir():
                yield RunPaths(parent / name)


def _folders_in(parent: Path, names: re.Pattern[bytes]) -> set[str]:
    try:
        with os.scandir(parent) as entries:
            return {
                entry.name
                for entry in entries
                if names.fullmatch(os.fsencode(entry.name)) and entry.is_dir(follow_symlinks=False)
            }
    except FileNotFoundError:
        return set()


def _config_of(run: RunPaths) -> bytes:
    try:
        return read_regular(run.config, _LARGEST_CONFIG_BYTES)
    except FileNotFoundError:
        return b""


def _named_in(text: bytes) -> set[str]:
    return {found.decode() for found in _NAMES.findall(text)}


def _remove(paths: StatePaths, name: str) -> None:
    try:
        remove_folder(paths.root, paths.downloads.name, name)
        _log.info("unused_download_removed", folder=name)
    except OSError as error:
        _log.warning("unused_download_kept", folder=name, reason=str(error))
