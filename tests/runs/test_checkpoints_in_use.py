"""A checkpoint that a run uses is not removed to make room, however the run names it and however new the run is."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from support.house import eventually, new_run, reached
from support.server import write_recipe
from tunesmith.app import House
from tunesmith.checkpoints import book as book_module
from tunesmith.errors import MissingReference
from tunesmith.records import Checkpoint, DatasetReference, Exit, utc_now
from tunesmith.runs import ResumeRequest
from tunesmith.runs import service as service_module

pytestmark = pytest.mark.anyio
SETTINGS = {"checkpoint_budget_bytes": 1500, "max_cpu_runs": 4}
WEIGHTS = 1000


def write_checkpoint(house: House, run_id: str, step: int) -> Path:
    folder = house.rooms.runs.folder(run_id).resolve() / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(WEIGHTS))
    files = [{"path": "weights", "bytes": WEIGHTS}]
    manifest = {"step": step, "created_at": utc_now().isoformat(), "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


async def failed_with_checkpoints(house: House, executor) -> tuple[Checkpoint, Checkpoint]:
    """The two oldest of three that a failed run left: the first to go when room is made."""
    run_id = await new_run(house)
    await reached(house, run_id, "running")
    executor.end(run_id, Exit(code=1))
    await reached(house, run_id)
    for step in (3, 5, 10):
        write_checkpoint(house, run_id, step)
    await house.rooms.checkpoints.reconcile(run_id, None)
    first, second, _ = house.rooms.checkpoints.present_of(run_id)
    return first, second


async def running(house: House) -> str:
    run_id = await new_run(house)
    await reached(house, run_id, "running")
    return run_id


def tell_of_a_checkpoint(house: House, run_id: str) -> None:
    """Which is when room is made."""
    line = json.dumps({"tunesmith": "checkpoint", "path": str(write_checkpoint(house, run_id, 1)), "step": 1})
    with (house.rooms.runs.folder(run_id) / "run.log").open("a") as log:
        log.write(line + "\n")


def lies_there(checkpoint: Checkpoint) -> bool:
    return Path(checkpoint.path, "weights").exists()


def is_gone(house: House, checkpoint: Checkpoint) -> bool:
    return house.rooms.checkpoints.get(checkpoint.id).removed_at is not None


async def test_one_that_is_the_model_of_a_run_stays(house, executor, recipes):
    """Named by its id, of which its config has made a path."""
    write_recipe(recipes, "uses", "true", {"model": {"base": ""}, "data": {"train_file": ""}}, data=["messages"])
    rows = recipes.parent / "rows.jsonl"
    rows.write_text('{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n')
    async with house(**SETTINGS) as open_house:
        first, second = await failed_with_checkpoints(open_house, executor)
        run_id = await new_run(open_house, "uses", model=first.id, dataset=DatasetReference(name=str(rows)))
        assert open_house.rooms.runs.book.get(run_id).checkpoints_used == (first.path,)
        tell_of_a_checkpoint(open_house, await running(open_house))
        await eventually(lambda: is_gone(open_house, second))
        assert not is_gone(open_house, first)
        assert lies_there(first)


async def test_one_that_a_run_in_creation_goes_on_from_stays(house, executor, monkeypatch):
    """It is not on record yet: the disk takes its time."""
    asked, go_on = threading.Event(), threading.Event()
    write = service_module._write_run_folder

    def slow(*place: object) -> None:
        asked.set()
        assert go_on.wait(60)
        write(*place)

    async with house(**SETTINGS) as open_house:
        first, second = await failed_with_checkpoints(open_house, executor)
        other = await running(open_house)
        monkeypatch.setattr(service_module, "_write_run_folder", slow)
        resuming = asyncio.ensure_future(
            open_house.rooms.runs.resume(first.run_id, ResumeRequest(checkpoint_id=first.id))
        )
        await eventually(asked.is_set)
        tell_of_a_checkpoint(open_house, other)
        await eventually(lambda: is_gone(open_house, second))
        go_on.set()
        assert (await resuming).resume_from == first.path
        assert not is_gone(open_house, first)
        assert lies_there(first)


async def test_one_that_is_being_removed_cannot_be_used_any_more(house, executor, monkeypatch):
    """It still lies there and is still on record, but whoever removes it has looked whether it is needed."""
    asked, go_on = threading.Event(), threading.Event()
    read = book_module.read_manifest

    def slow(folder: Path) -> object:
        if not asked.is_set():
            asked.set()
            assert go_on.wait(60)
        return read(folder)

    async with house(**SETTINGS) as open_house:
        first, second = await failed_with_checkpoints(open_house, executor)
        monkeypatch.setattr(book_module, "read_manifest", slow)
        removing = asyncio.ensure_future(open_house.rooms.checkpoints.remove(first.id))
        await eventually(asked.is_set)
        before = len(open_house.rooms.runs.book.unfinished())
        with pytest.raises(MissingReference) as refused:
            await open_house.rooms.runs.resume(first.run_id, ResumeRequest(checkpoint_id=first.id))
        assert first.path in str(refused.value.faults[0].message)
        assert len(open_house.rooms.runs.unfinished()) == before
        go_on.set()
        assert await removing
        resumed = await open_house.rooms.runs.resume(first.run_id, ResumeRequest(checkpoint_id=second.id))
        assert resumed.checkpoints_used == (second.path,)
