"""``tunesmith state``: check the journals of a state folder, and mend them while no server runs on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.options import json_option, state_dir_option
from tunesmith.cli.render import print_json
from tunesmith.errors import MissingReference
from tunesmith.files import SET_ASIDE
from tunesmith.paths import StatePaths

if TYPE_CHECKING:
    from tunesmith.errors import Fault
    from tunesmith.journal import Verdict


@click.group()
def state() -> None:
    """Verify and repair the state folder, or accept that records are lost."""


@state.command()
@state_dir_option
@json_option
def verify(*, state_dir: Path | None, as_json: bool) -> None:
    """Check every line of every journal, and that none is missing or older than it was. Changes nothing, may run beside a
    server; exits with 1 on damage.
    """
    from tunesmith.journal import Verdict
    from tunesmith.journal import verify as verify_journal

    paths = _existing(state_dir)
    lost = _lost(paths)
    verdicts = [verify_journal(path) for path in paths.journals if path.exists() and str(path) not in lost]
    verdicts += [Verdict(path=str(path), damaged=1, faults=(fault,)) for path, fault in lost.items()]
    if as_json:
        print_json(verdicts)
    else:
        for verdict in verdicts:
            click.echo(_summary(verdict))
            for fault in verdict.faults:
                click.echo(f"  - {fault}")
        _print_set_aside(paths)
    sys.exit(0 if all(verdict.sound for verdict in verdicts) else 1)


@state.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@state_dir_option
@json_option
def repair(*, files: tuple[str, ...], state_dir: Path | None, as_json: bool) -> None:
    """Mend damaged journals: keep every sound line, and the whole damaged file beside it.

    FILE is a journal of the state folder, such as runs.jsonl; without any, all are mended. No server may hold the folder.
    Exits with 1 when one is missing or older than it was: no repair brings back what it held.
    """
    from tunesmith.journal import repair as repair_journal
    from tunesmith.records import utc_now
    from tunesmith.server.state_lock import StateLock
    from tunesmith.state_folder import note_repaired

    paths = _existing(state_dir)
    chosen = _chosen(paths, files)
    with StateLock.acquire(paths.lock):
        kept = {path: repair_journal(path) for path in chosen if path.exists()}
        note_repaired(paths, {path: beside for path, beside in kept.items() if beside != path}, utc_now)
    lost = _lost(paths)
    if as_json:
        print_json([_outcome(path, kept.get(path), lost.get(str(path))) for path in chosen])
    else:
        for path in chosen:
            click.echo(_what_was_done(path, kept.get(path), lost.get(str(path))))
    sys.exit(1 if any(str(path) in lost for path in chosen) else 0)


@state.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@state_dir_option
def accept(*, files: tuple[str, ...], state_dir: Path | None) -> None:
    """Start from journals as they are, although records that they held are missing.

    FILE is what the server refuses to start with, such as runs.jsonl, or journals.json when that cannot be read. What
    belonged to the lost records is moved to set-aside/ in the state folder: runs' folders now, uploads by the next start.
    No server may hold the folder.
    """
    from tunesmith.records import utc_now
    from tunesmith.server.state_lock import StateLock
    from tunesmith.state_folder import accept as accept_journals

    paths = _existing(state_dir)
    known = {path.name for path in (*paths.journals, paths.watermarks)}
    names = tuple(Path(file).name for file in files)
    for name in names:
        if name not in known:
            raise MissingReference(
                "is not a journal of a state folder", where=name, mend=f"these are: {', '.join(sorted(known))}"
            )
    with StateLock.acquire(paths.lock):
        for sentence in accept_journals(paths, names, utc_now, lambda: _ids_in(paths.runs)):
            click.echo(sentence)
    if paths.keys.name in names and not _ids_in(paths.keys):
        click.echo("there are no API keys now: everybody on this machine may call the service", err=True)


def _ids_in(journal: Path) -> set[str]:
    from tunesmith.journal.verify import scan

    if not journal.exists():
        return set()
    with journal.open("rb") as file:
        return {scanned.entry.id for scanned in scan(file) if scanned.entry is not None}


def _outcome(path: Path, beside: Path | None, lost: Fault | None) -> dict[str, Any]:
    """``beside`` is the journal as it was, None if there is none."""
    from tunesmith.journal import verify as verify_journal

    return {
        "path": str(path),
        "mended": beside not in (None, path),
        "original": str(beside) if beside else None,
        "lines": verify_journal(path).lines if beside else 0,
        "faults": [lost] if lost else [],
    }


def _what_was_done(path: Path, beside: Path | None, lost: Fault | None) -> str:
    from tunesmith.journal import verify as verify_journal

    done = [f"{path}: missing or older than it was", f"  - {lost}"] if lost else []
    if beside is None or (lost and beside == path):
        return "\n".join(done)
    if beside == path:
        return f"{path}: nothing was wrong with it"
    before, after = verify_journal(beside), verify_journal(path)
    mended = [
        f"{path}: mended; it now holds {after.records} of the {before.lines} lines{'' if lost else ', and opens'}",
        f"  the file as it was: {beside}",
        "  a record whose latest line was lost is back at the line before, or gone; diff the two files to see which",
    ]
    return "\n".join([*mended, *done])


def _summary(verdict: Verdict) -> str:
    if verdict.damaged and not verdict.lines:
        return f"{verdict.path}: missing or older than it was"
    found = f"{verdict.path}: {'ok' if verdict.sound else 'damaged'}, {verdict.records} records"
    if verdict.damaged:
        found += f", {verdict.damaged} faults"
    if verdict.torn_bytes:
        # While a server is appending, the same can be seen of a line that it has not finished.
        found += f", {verdict.torn_bytes} bytes of an unfinished last line (the next start sets them aside)"
    return found


def _print_set_aside(paths: StatePaths) -> None:
    for path in sorted(paths.root.glob("*.jsonl.*-*")):
        click.echo(f"{path}: set aside earlier, {path.stat().st_size} bytes")
    for path in sorted((paths.root / SET_ASIDE).glob("*/*")):
        click.echo(f"{path}: set aside earlier, nothing on record knows of it")


def _existing(state_dir: Path | None) -> StatePaths:
    from tunesmith.settings import load
    from tunesmith.state_folder import refuse_without_state

    settings, _ = load(flags={"state_dir": state_dir})
    paths = StatePaths(settings.state_dir)
    refuse_without_state(paths)
    return paths


def _lost(paths: StatePaths) -> dict[str, Fault]:
    """By its path, each journal that is missing or older than it was."""
    from tunesmith.journal import Watermarks
    from tunesmith.records import utc_now
    from tunesmith.state_folder import missing

    return {str(fault.where): fault for fault in missing(paths, Watermarks(paths.watermarks, utc_now))}


def _chosen(paths: StatePaths, files: tuple[str, ...]) -> list[Path]:
    lost = _lost(paths)
    existing = {path.name: path for path in paths.journals if path.exists() or str(path) in lost}
    by_path = {path.resolve(): path for path in existing.values()}
    chosen = [existing.get(name) or by_path.get(Path(name).resolve()) for name in files]
    for name, path in zip(files, chosen, strict=True):
        if path is None:
            raise MissingReference(
                "is not a journal of this state folder", where=name, mend=f"there is: {', '.join(existing)}"
            )
    return [path for path in chosen if path is not None] or list(existing.values())
