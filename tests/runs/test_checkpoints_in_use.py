"""A checkpoint that a run uses is not removed to make room, however the run names it and however new the run is."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from support.app import eventually, new_run, reached
from support.server import write_recipe
from tunesmith.app import App
from tunesmith.checkpoints import book as book_module
from tunesmith.errors import MissingReference
from tunesmith.records import Checkpoint, DatasetReference, Exit, utc_now
from tunesmith.runs import ResumeRequest
from tunesmith.runs import creation as creation_module

pytestmark = pytest.mark.anyio
SETTINGS = {"checkpoint_budget_bytes": 1500, "max_cpu_runs": 4}
WEIGHTS = 1000


def write_checkpoint(app: App, run_id: str, step: int) -> Path:
    folder = app.services.paths.run(run_id).folder.resolve() / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(WEIGHTS))
    files = [{"path": "weights", "bytes": WEIGHTS}]
    manifest = {"step": step, "created_at": utc_now().isoformat(), "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


async def failed_with_checkpoints(app: App, executor) -> tuple[Checkpoint, Checkpoint]:
    """The two oldest of three that a failed run left: the first to go when room is made."""
    run_id = await new_run(app)
    await reached(app, run_id, "running")
    executor.end(run_id, Exit(code=1))
    await reached(app, run_id)
    for step in (3, 5, 10):
        write_checkpoint(app, run_id, step)
    await app.services.checkpoints.reconcile(run_id, None)
    first, second, _ = app.services.checkpoints.present_of(run_id)
    return first, second


async def running(app: App) -> str:
    run_id = await new_run(app)
    await reached(app, run_id, "running")
    return run_id


def tell_of_a_checkpoint(app: App, run_id: str) -> None:
    """Which is when room is made."""
    line = json.dumps({"tunesmith": "checkpoint", "path": str(write_checkpoint(app, run_id, 1)), "step": 1})
    with (app.services.paths.run(run_id).folder / "run.log").open("a") as log:
        log.write(line + "\n")


def lies_there(checkpoint: Checkpoint) -> bool:
    return Path(checkpoint.path, "weights").exists()


def is_gone(app: App, checkpoint: Checkpoint) -> bool:
    return app.services.checkpoints.get(checkpoint.id).removed_at is not None


async def test_one_that_is_the_model_of_a_run_stays(open_app, executor, recipes):
    """Named by its id, of which its config has made a path."""
    write_recipe(recipes, "uses", "true", {"model": {"base": ""}, "data": {"train_file": ""}}, data=["messages"])
    rows = recipes.parent / "rows.jsonl"
    rows.write_text('{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n')
    async with open_app(**SETTINGS) as app:
        first, second = await failed_with_checkpoints(app, executor)
        run_id = await new_run(app, "uses", model=first.id, dataset=DatasetReference(name=str(rows)))
        assert app.services.runs.book.get(run_id).checkpoints_used == (first.path,)
        tell_of_a_checkpoint(app, await running(app))
        await eventually(lambda: is_gone(app, second))
        assert not is_gone(app, first)
        assert lies_there(first)


async def test_one_that_a_run_in_creation_goes_on_from_stays(open_app, executor, monkeypatch):
    """It is not on record yet: the disk takes its time."""
    asked, go_on = threading.Event(), threading.Event()
    write = creation_module._write_run_folder

    def slow(*place: object) -> None:
        asked.set()
        assert go_on.wait(60)
        write(*place)

    async with open_app(**SETTINGS) as app:
        first, second = await failed_with_checkpoints(app, executor)
        other = await running(app)
        monkeypatch.setattr(creation_module, "_write_run_folder", slow)
        resuming = asyncio.ensure_future(
            app.services.runs.resumer.resume(first.run_id, ResumeRequest(checkpoint_id=first.id))
        )
        await eventually(asked.is_set)
        tell_of_a_checkpoint(app, other)
        await eventually(lambda: is_gone(app, second))
        go_on.set()
        assert (await resuming).resume_from == first.path
        assert not is_gone(app, first)
        assert lies_there(first)


async def test_one_that_is_being_removed_cannot_be_used_any_more(open_app, executor, monkeypatch):
    """It still lies there and is still on record, but whoever removes it has looked whether it is needed."""
    asked, go_on = threading.Event(), threading.Event()
    read = book_module.read_manifest

    def slow(folder: Path) -> object:
        if not asked.is_set():
            asked.set()
            assert go_on.wait(60)
        return read(folder)

    async with open_app(**SETTINGS) as app:
        first, second = await failed_with_checkpoints(app, executor)
        monkeypatch.setattr(book_module, "read_manifest", slow)
        removing = asyncio.ensure_future(app.services.checkpoints.remove(first.id))
        await eventually(asked.is_set)
        before = len(app.services.runs.book.unfinished())
        with pytest.raises(MissingReference) as refused:
            await app.services.runs.resumer.resume(first.run_id, ResumeRequest(checkpoint_id=first.id))
        assert first.path in str(refused.value.faults[0].message)
        assert len(app.services.runs.unfinished.all()) == before
        go_on.set()
        assert await removing
        resumed = await app.services.runs.resumer.resume(first.run_id, ResumeRequest(checkpoint_id=second.id))
        assert resumed.checkpoints_used == (second.path,)
