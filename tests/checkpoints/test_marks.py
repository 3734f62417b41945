"""Marks under attack: many at once, at once with a removal, too large, and with tags that mean something else."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from checkpoint_parts import EXPERIMENT, opened_book, write_checkpoint

from tunesmith.checkpoints import MarkRequest, Retention
from tunesmith.errors import InvalidInput, MissingReference, TooLarge, TunesmithError
from tunesmith.records import Checkpoint, Mark

pytestmark = pytest.mark.anyio


def wanted(path: Path, tag: str | None, **more) -> MarkRequest:
    run_id = path.parents[1].name
    return MarkRequest(run_id=run_id, ckpt_path=str(path), tag_type="release", release_tag=tag, **more)


async def outcomes(*marks) -> list[tuple[Checkpoint, Mark] | BaseException]:
    return await asyncio.gather(*marks, return_exceptions=True)


async def on_record(state: Path, run_id: str = "run_1") -> list[Checkpoint]:
    """What the next server reads."""
    async with opened_book(state) as book:
        return book.present_of(run_id)


async def test_twenty_marks_at_once_are_all_on_record(tmp_path):
    """Each of them was acknowledged, so each of them is there, also after a restart."""
    path = write_checkpoint(tmp_path, "run_1", 5)
    async with opened_book(tmp_path) as book:
        await book.reconcile("run_1", EXPERIMENT)
        told = await outcomes(*(book.mark(wanted(path, f"v{number}"), EXPERIMENT) for number in range(20)))
        assert not [one for one in told if isinstance(one, BaseException)]
    [checkpoint] = await on_record(tmp_path)
    assert {mark.release_tag for mark in checkpoint.marks} == {f"v{number}" for number in range(20)}


async def test_a_release_tag_names_one_checkpoint_whoever_comes_at_once(tmp_path):
    """Of several who want the same tag for different checkpoints one is heard, and the others are told by whom it is held."""
    paths = [write_checkpoint(tmp_path, "run_1", step) for step in range(1, 6)]
    async with opened_book(tmp_path) as book:
        await book.reconcile("run_1", EXPERIMENT)
        told = await outcomes(*(book.mark(wanted(path, "best"), EXPERIMENT) for path in paths))
        assert sum(isinstance(one, InvalidInput) and "already names" in one.message for one in told) == 4
        held = book.referenced("best")
    assert [one for one in await on_record(tmp_path) if one.marks] == [held]


async def test_marks_and_removals_at_once_agree(tmp_path):
    """Whatever comes first: what was marked is there with its mark, and what is gone was never acknowledged as marked."""
    paths = [write_checkpoint(tmp_path, "run_1", step) for step in range(30)]
    async with opened_book(tmp_path) as book:
        await book.reconcile("run_1", EXPERIMENT)

        async def remove_after(turns: int, checkpoint: Checkpoint) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await book.remove(checkpoint.id)

        removals = [remove_after(20 * turns, one) for turns, one in enumerate(book.present_of("run_1"))]
        marks = [book.mark(wanted(path, f"v{number}"), EXPERIMENT) for number, path in enumerate(paths)]
        told, *_ = await asyncio.gather(outcomes(*marks), outcomes(*removals), book.reconcile("run_1", EXPERIMENT))
        acknowledged = {one[1].release_tag for one in told if not isinstance(one, BaseException)}
        assert all(isinstance(one, MissingReference) for one in told if isinstance(one, BaseException))
        await book.reconcile("run_1", EXPERIMENT)
    present = await on_record(tmp_path)
    assert {one.path for one in present} == {str(path) for path in paths if (path / "manifest.json").exists()}
    assert {mark.release_tag for one in present for mark in one.marks} == acknowledged
    assert len(present) == len(acknowledged)


async def test_retention_looks_again_before_it_removes(tmp_path):
    """What is marked, or taken into use, while older ones are being removed stays."""
    paths = [write_checkpoint(tmp_path, "run_1", step) for step in range(6)]
    async with opened_book(tmp_path) as book:
        await book.reconcile("run_1", EXPERIMENT)
        in_use: list[str] = []
        pruning = asyncio.create_task(Retention(book, 1, lambda: in_use).make_room())
        await asyncio.sleep(0)  # it has seen which there are
        in_use.append(str(paths[4]))
        told = await outcomes(book.mark(wanted(paths[3], "late"), EXPERIMENT))
        removed = await pruning
        assert str(paths[4]) not in {one.path for one in removed}
        if not isinstance(told[0], BaseException):
            assert str(paths[3]) not in {one.path for one in removed}
    assert {one.step for one in await on_record(tmp_path)} >= {4, 5}


async def test_a_trainer_that_prunes_at_the_same_time_loses_no_mark(tmp_path):
    """It has put the folder aside already: the mark is refused, and nothing of it is on record."""
    path = write_checkpoint(tmp_path, "run_1", 5)
    async with opened_book(tmp_path) as book:
        await book.reconcile("run_1", EXPERIMENT)
        path.rename(path.with_name(".removed-checkpoint-5"))
        with pytest.raises(MissingReference, match="just removed"):
            await book.mark(wanted(path, "v1"), EXPERIMENT)
        await book.reconcile("run_1", EXPERIMENT)
        assert book.present_of("run_1") == []
        path.with_name(".removed-checkpoint-5").rename(path)
        await book.reconcile("run_1", EXPERIMENT)
        await book.mark(wanted(path, "v1"), EXPERIMENT)
    [checkpoint] = await on_record(tmp_path)
    assert [mark.release_tag for mark in checkpoint.marks] == ["v1"]


async def test_a_checkpoint_that_was_written_over_is_another_one(tmp_path):
    """Removing the record of the old one leaves the new one alone."""
    path = write_checkpoint(tmp_path, "run_1", 5)
    async with opened_book(tmp_path) as book:
        await book.reconcile("run_1", EXPERIMENT)
        [old] = book.present_of("run_1")
        write_checkpoint(tmp_path, "run_1", 5, created_at="2026-02-02T00:00:00Z")
        assert await book.remove(old.id)
        assert (path / "weights").exists()
        await book.reconcile("run_1", EXPERIMENT)
        [new] = book.present_of("run_1")
        assert (new.id, book.bytes_in_use()) != (old.id, 2000)
        assert book.bytes_in_use() == 1000


async def test_a_mark_is_bounded(tmp_path):
    """In size, depth and number; a tag is a printable name."""
    path = write_checkpoint(tmp_path, "run_1", 5)
    deep: dict = {}
    for _ in range(3000):
        deep = {"deeper": deep}
    async with opened_book(tmp_path) as book:
        await book.reconcile("run_1", EXPERIMENT)
        with pytest.raises(TooLarge, match="70011 bytes") as too_large:
            await book.mark(wanted(path, "v1", metrics={"text": "x" * 70_000}), EXPERIMENT)
        assert too_large.value.where == "metrics"
        with pytest.raises(InvalidInput, match="nested"):
            await book.mark(wanted(path, "v1", metrics=deep), EXPERIMENT)
        for tag in (" ", "a\x1b[2Jb", "a\nb"):
            with pytest.raises(InvalidInput):
                await book.mark(wanted(path, tag), EXPERIMENT)
        told = await outcomes(*(book.mark(wanted(path, f"v{number}"), EXPERIMENT) for number in range(110)))
        assert sum(isinstance(one, TunesmithError) for one in told) == 10
    [checkpoint] = await on_record(tmp_path)
    assert len(checkpoint.marks) == 100


async def test_a_mark_needs_no_release_tag(tmp_path):
    """Then there is one for each type: a repeat brings its metrics up to date."""
    path = write_checkpoint(tmp_path, "run_1", 5)
    async with opened_book(tmp_path) as book:
        await book.reconcile("run_1", EXPERIMENT)
        for score in (1, 2):
            await book.mark(wanted(path, None, metrics={"score": score}), EXPERIMENT)
        await book.mark(wanted(path, "v1"), EXPERIMENT)
    [checkpoint] = await on_record(tmp_path)
    assert [(mark.release_tag, mark.metrics) for mark in checkpoint.marks] == [(None, {"score": 2}), ("v1", {})]


async def test_a_tag_that_means_something_else_is_refused(tmp_path):
    """With the reason; a checkpoint's own id among them."""
    path = write_checkpoint(tmp_path, "run_1", 5)
    async with opened_book(tmp_path, {"small": "an alias from the settings"}.get) as book:
        await book.reconcile("run_1", EXPERIMENT)
        [checkpoint] = book.present_of("run_1")
        for tag, reason in (("small", "an alias"), (checkpoint.id, "a checkpoint's id")):
            with pytest.raises(InvalidInput, match=reason):
                await book.mark(wanted(path, tag), EXPERIMENT)


async def test_nothing_outside_of_a_runs_folder_is_listed_kept_or_removed(tmp_path):
    """Links in the place of a checkpoint, of the checkpoints' folder, of the run's folder, and of KEEP."""
    outside = tmp_path / "outside"
    precious = [write_checkpoint(outside, run_id, 7) for run_id in ("run_1", "run_2", "run_3")]
    runs = tmp_path / "state" / "runs"
    (runs / "run_1" / "checkpoints").mkdir(parents=True)
    (runs / "run_1" / "checkpoints" / "checkpoint-7").symlink_to(precious[0])
    (runs / "run_2").mkdir()
    (runs / "run_2" / "checkpoints").symlink_to(precious[1].parent)
    (runs / "run_3").symlink_to(precious[2].parents[1])
    own = write_checkpoint(tmp_path / "state", "run_4", 5)
    swapped = write_checkpoint(tmp_path / "state", "run_5", 5)
    async with opened_book(tmp_path / "state") as book:
        for number in range(1, 6):
            await book.reconcile(f"run_{number}", EXPERIMENT)
        assert [one.path for one in book.present().values()] == [str(own), str(swapped)]
        (own / "KEEP").symlink_to(outside / "made")
        await book.mark(wanted(own, "v1"), EXPERIMENT)
        assert not (outside / "made").exists()
        # On record as complete, and then its run puts links in its place: while it is removed.
        swapped.parent.rename(tmp_path / "moved")
        (runs / "run_5" / "checkpoints").mkdir()
        swapped.symlink_to(precious[0])
        assert await book.remove(book.present_of("run_5")[0].id)
    assert all((path / "manifest.json").exists() and (path / "weights").exists() for path in precious)


async def test_a_removal_comes_to_an_end_whatever_lies_in_the_folder(tmp_path):
    """Links to outside, FIFOs, sockets' names and a thousand levels of folders: all gone, and nothing outside is."""
    precious = write_checkpoint(tmp_path / "outside", "run_1", 7)
    path = write_checkpoint(tmp_path / "state", "run_1", 5)
    os.mkfifo(path / "fifo")
    (path / "folder-link").symlink_to(precious)
    (path / "file-link").symlink_to(precious / "weights")
    deep = os.open(path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deeper", dir_fd=deep)
        below = os.open("deeper", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    try:
        async with opened_book(tmp_path / "state") as book:
            await book.reconcile("run_1", EXPERIMENT)
            assert await book.remove(book.present_of("run_1")[0].id)
        assert not path.exists()
        assert (precious / "weights").exists()
    finally:
        subprocess.run(["rm", "-rf", path], check=True)  # noqa: ASYNC221  # pytest's own cleaning up goes by recursion


async def test_a_manifest_that_is_no_file_makes_no_checkpoint(tmp_path):
    """A FIFO, a link, a folder, something endless: the others are listed, and nobody waits."""
    good = write_checkpoint(tmp_path, "run_1", 1)
    for step in (2, 3, 4, 5, 6):
        (write_checkpoint(tmp_path, "run_1", step) / "manifest.json").unlink()
    folder = good.parent
    os.mkfifo(folder / "checkpoint-2" / "manifest.json")
    (folder / "checkpoint-3" / "manifest.json").symlink_to(good / "manifest.json")
    (folder / "checkpoint-4" / "manifest.json").mkdir()
    with (folder / "checkpoint-5" / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    (folder / "checkpoint-6" / "manifest.json").write_text('{"step": 1e999, "created_at": "2026-01-01T00:00:00Z"}')
    os.mkfifo(folder / "checkpoint-7")
    async with opened_book(tmp_path) as book:
        await book.reconcile("run_1", EXPERIMENT)
        assert [one.path for one in book.present().values()] == [str(good)]
