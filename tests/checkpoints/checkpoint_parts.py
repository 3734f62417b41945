"""Checkpoint folders as a trainer leaves them, and a book over a state folder of one's own. Asserts nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tunesmith.checkpoints import CheckpointBook, CheckpointSummary
from tunesmith.journal import Journal
from tunesmith.paths import StatePaths
from tunesmith.records import Checkpoint, utc_now

EXPERIMENT = "exp_1"


def write_checkpoint(state: Path, run_id: str, step: int, *, created_at: str = "2026-01-01T00:00:00Z") -> Path:
    """A complete one, with 1,000 bytes of weights."""
    folder = state.resolve() / "runs" / run_id / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_bytes(bytes(1000))
    manifest = {"step": step, "created_at": created_at, "files": [{"path": "weights", "bytes": 1000}]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@asynccontextmanager
async def opened_book(
    state: Path, other_meaning: Callable[[str], str | None] = lambda _: None
) -> AsyncIterator[CheckpointBook]:
    """The book of what is on record in ``state``."""
    paths = StatePaths(state)
    paths.create()
    journal = Journal.open(paths.checkpoints, Checkpoint, CheckpointSummary)
    try:
        yield CheckpointBook(journal, paths, utc_now, other_meaning)
    finally:
        await journal.close()
