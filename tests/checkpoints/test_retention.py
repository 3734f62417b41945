"""What may go when space is short, how much is in use, and that neither takes a look at every record."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
from checkpoint_parts import EXPERIMENT, opened_book, write_checkpoint

from support.server import ServerProcess, start_run, wait_for_run, write_recipe
from tunesmith.checkpoints import CheckpointSummary, Retention
from tunesmith.checkpoints.book import Measured
from tunesmith.checkpoints.retention import removable
from tunesmith.records import Mark, utc_now

NOW = utc_now()


def one(run_id: str, step: int, loss: float | None = None, **more) -> CheckpointSummary:
    path = f"/{run_id}/{step}"
    created_at = NOW + timedelta(seconds=step)
    return CheckpointSummary(run_id, step, path, 1, created_at, metrics=Measured(loss), **more)


def spoil(journal: Path) -> None:
    """From now on none of its records can be read; what was read before is known."""
    journal.write_bytes(journal.read_bytes().replace(b'"path":"/', b'"path":"x'))


def test_what_nobody_needs_is_neither_marked_nor_in_use_nor_its_runs_newest_or_best():
    """Of each run by itself, oldest first."""
    present = {
        "a1": one("a", 1),
        "b1": one("b", 1, 0.5),
        "a2": one("a", 2, marks=(Mark(tag_type="release", metrics={}, at=NOW),)),
        "b2": one("b", 2, 0.1),
        "a3": one("a", 3),
        "b3": one("b", 3, 0.1),
        "a4": one("a", 4),
        "b4": one("b", 4, 0.7),
        "c9": one("c", 9),
    }
    assert removable(present, frozenset({"/a/3"})) == ["a1", "b1", "b3"]
    assert removable({}, frozenset()) == []


def test_what_may_go_is_found_in_one_pass():
    """At every new checkpoint while over budget: a pass for each run would stop the service for minutes."""
    present = {f"{run}.{step}": one(f"run_{run}", step) for run in range(20_000) for step in range(2)}
    begun = time.monotonic()
    assert len(removable(present, frozenset())) == 20_000
    assert time.monotonic() - begun < 10


@pytest.mark.anyio
async def test_what_is_in_use_is_counted_through_every_change(tmp_path):
    """Written, marked, written over, removed, back again, and on record when the next server starts."""

    def totals(book) -> tuple[int, int]:
        assert len(book.present()) == book.count_present()
        return book.count_present(), book.bytes_in_use()

    first, *_ = [write_checkpoint(tmp_path, "run_1", step) for step in range(3)]
    async with opened_book(tmp_path) as book:
        assert totals(book) == (0, 0)
        await book.reconcile("run_1", EXPERIMENT)
        assert totals(book) == (3, 3000)
        first.rename(tmp_path / "away")
        await book.reconcile("run_1", EXPERIMENT)
        assert totals(book) == (2, 2000)
        (tmp_path / "away").rename(first)
        await book.reconcile("run_1", EXPERIMENT)
        assert totals(book) == (3, 3000)
        write_checkpoint(tmp_path, "run_1", 0, created_at="2026-02-02T00:00:00Z")
        await book.reconcile("run_1", EXPERIMENT)
        assert totals(book) == (3, 3000)
    async with opened_book(tmp_path) as book:
        assert totals(book) == (3, 3000)
        removed = await Retention(book, 2500, list).make_room()
        assert [one.step for one in removed] == [1], "the other one was written over, and is newer"
        assert totals(book) == (2, 2000)
    async with opened_book(tmp_path) as book:
        assert totals(book) == (2, 2000)


WRITES = """
folder="$TUNESMITH_RUN_DIR/checkpoints/checkpoint-5"
mkdir "$folder"
echo '{"step": 5, "created_at": "2026-01-01T00:00:00Z"}' >"$folder/manifest.json"
echo "{\\"tunesmith\\": \\"checkpoint\\", \\"path\\": \\"$folder\\", \\"step\\": 5}"
"""


def test_storage_is_told_without_reading_a_record(tmp_path):
    """There may be so many that reading them all would hold up everybody."""
    write_recipe(tmp_path / "recipes", "writes", WRITES)
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes") as server:
        with server.client() as client:
            wait_for_run(client, start_run(client, "writes"))
        server.kill9()
        server.up()
        spoil(tmp_path / "state" / "checkpoints.jsonl")
        with server.client() as client:
            assert client.get("/v1/storage").raise_for_status().json()["checkpoints"] == 1
