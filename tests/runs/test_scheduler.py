"""Which run goes next, on which GPU, and that nothing that happens to one run reaches the others."""

from __future__ import annotations

import asyncio
import errno
import signal

import anyio
import anyio.lowlevel
import pytest

from support.app import eventually, new_run, reached
from support.server import ServerProcess
from tunesmith.errors import Conflict, InvalidInput, NotFound, Unavailable
from tunesmith.records import Exit, Resources, RunState
from tunesmith.runner import Demand
from tunesmith.runs import RunRequest

pytestmark = pytest.mark.anyio


async def test_runs_go_by_priority_then_by_age(open_app, executor):
    """The larger priority first; among equals whoever came first; one at a time on one slot."""
    async with open_app() as app:
        first = await new_run(app)
        await reached(app, first, "running")
        low, later, high = [await new_run(app, priority=priority) for priority in (0, 0, 5)]
        assert app.services.scheduler.queue_length == 3
        for run_id in (first, high, low, later):
            await reached(app, run_id, "running")
            executor.end(run_id)
            await reached(app, run_id)
        assert executor.order == [first, high, low, later]
        await eventually(lambda: app.services.slots.cpu_runs == 0)


async def test_cpu_slots_are_used_up_to_their_number(open_app, executor):
    """Two slots run two, the third waits for the first that ends."""
    async with open_app(max_cpu_runs=2) as app:
        runs = [await new_run(app) for _ in range(3)]
        for run_id in runs[:2]:
            await reached(app, run_id, "running")
        assert app.services.runs.book.get(runs[2]).state is RunState.QUEUED
        executor.end(runs[1])
        await reached(app, runs[2], "running")
        assert app.services.runs.book.get(runs[0]).state is RunState.RUNNING


async def test_gpus_are_exclusive_and_visible_to_the_run_alone(open_app, executor):
    """Each run sees the GPUs it leases and no others; a run without GPUs sees none."""
    async with open_app(gpus=("A100 a", "A100 b", "L4"), max_cpu_runs=1) as app:
        pair = await new_run(app, resources=Resources(count=2, gpu_type="a100"))
        single = await new_run(app, "wants-gpus")
        none = await new_run(app)
        waits = await new_run(app, resources=Resources(count=1, gpu_type="A100"))
        for run_id in (pair, single, none):
            await reached(app, run_id, "running")
        visible = {run_id: launch.env["CUDA_VISIBLE_DEVICES"] for run_id, launch in executor.launched}
        assert visible == {pair: "GPU-A100 a,GPU-A100 b", single: "GPU-L4", none: ""}
        assert app.services.runs.book.get(waits).state is RunState.QUEUED
        executor.end(pair)
        await reached(app, waits, "running")
        assert app.services.runs.book.get(waits).gpus == ("GPU-A100 a",)


async def test_a_large_run_is_not_overtaken_for_ever(open_app, executor):
    """A run that waits for two GPUs holds back later ones that need one; runs without a GPU pass it."""
    async with open_app(gpus=("a", "b"), max_cpu_runs=1) as app:
        holder = await new_run(app, "wants-gpus")
        await reached(app, holder, "running")
        large = await new_run(app, resources=Resources(count=2))
        small = await new_run(app, "wants-gpus")
        on_cpu = await new_run(app)
        await reached(app, on_cpu, "running")
        assert app.services.runs.book.get(small).state is RunState.QUEUED
        executor.end(holder)
        await reached(app, large, "running")
        assert executor.order == [holder, on_cpu, large]


async def test_what_this_machine_cannot_give_is_refused_or_said(open_app):
    """More GPUs than there are is an error; on a machine without any, a run that can do without is warned."""
    async with open_app(gpus=("L4",)) as app:
        with pytest.raises(InvalidInput, match="asks for 2 GPUs"):
            await new_run(app, resources=Resources(count=2))
        with pytest.raises(InvalidInput, match="needs a GPU"):
            await new_run(app, "gpu-only", resources=Resources(count=0))
    async with open_app() as app:
        run = await app.services.runs.creator.create(
            RunRequest(recipe="plain", resources=Resources(count=2, gpu_type="A100"))
        )
        assert "2 x A100 was asked for; this machine has no GPU" in run.warnings[0]
        assert (run.resources, run.gpus_needed) == (Resources(count=2, gpu_type="A100"), 0)
        assert (await reached(app, run.id, "running")).gpus == ()
        with pytest.raises(InvalidInput, match="needs a GPU and this machine has none"):
            await new_run(app, "gpu-only")
        with pytest.raises(InvalidInput, match="cannot be negative"):
            await new_run(app, resources=Resources(count=-1))


async def test_a_type_of_gpu_alone_asks_for_one_of_it(open_app):
    """Also where the recipe wants none by default; without any GPU here, the run says that it uses the CPU."""
    async with open_app(gpus=("A100", "L4")) as app:
        run = app.services.runs.book.get(await new_run(app, resources=Resources(gpu_type="L4")))
        assert (run.resources, run.gpus_needed) == (Resources(gpu_type="L4"), 1)
        assert (await reached(app, run.id, "running")).gpus == ("GPU-L4",)
        with pytest.raises(InvalidInput, match="asks for 1 GPUs of type H100"):
            await new_run(app, resources=Resources(gpu_type="H100"))
        on_cpu = await new_run(app, resources=Resources(gpu_type="L4", count=0))
        assert app.services.runs.book.get(on_cpu).gpus_needed == 0
    async with open_app() as app:
        run = app.services.runs.book.get(await new_run(app, resources=Resources(gpu_type="L4")))
        assert "1 x L4 was asked for; this machine has no GPU" in run.warnings[0]


async def test_a_run_whose_gpus_were_taken_out_says_so_and_holds_nobody_back(open_app, executor):
    """Queued for two GPUs, and the next server finds one: it waits, visibly, while others use that one; it can be cancelled."""
    async with open_app(gpus=("a", "b")) as app:
        await reached(app, await new_run(app, resources=Resources(count=2)), "running")
        waits = await new_run(app, resources=Resources(count=2))
        assert app.services.runs.warnings.of(app.services.runs.book.get(waits)) == ()
    executor.end(executor.order[0])
    async with open_app(gpus=("a",)) as app:
        runs = app.services.runs
        other = await new_run(app, "wants-gpus")
        await reached(app, other, "running")
        (warning,) = runs.warnings.of(runs.book.get(waits))
        assert "asks for 2 GPUs, this machine has 1" in warning
        assert (await runs.stopper.cancel(waits)).state is RunState.CANCELLED


async def test_why_a_queued_run_cannot_start_is_seen_over_http(open_app, executor, recipes, tmp_path):
    """Created where there was such a GPU, then served where there is none: in the run, its status and the lists."""
    async with open_app(gpus=("made up",)) as app:
        await reached(app, await new_run(app, resources=Resources(gpu_type="made up")), "running")
        waits = await new_run(app, resources=Resources(gpu_type="made up"))
    # The other one never had a process, and must not be waited for.
    env = {"TUNESMITH_START_DEADLINE_SECONDS": "0.1"}
    with ServerProcess.start(tmp_path / "state", recipes, env) as server, server.client() as client:
        for view in (client.get(f"/v1/runs/{waits}"), client.get(f"/v1/runs/{waits}/status")):
            assert view.json()["status"] == "queued"
            assert "asks for 1 GPUs of type made up, this machine has 0" in view.json()["warnings"][0]
        listed = client.get("/v1/runs", params={"state": "queued"}).json()["runs"]
        assert [(run["run_id"], len(run["warnings"])) for run in listed] == [(waits, 1)]
        assert client.post(f"/v1/runs/{waits}/cancel").json()["status"] == "cancelled"
        assert client.get(f"/v1/runs/{waits}").json()["warnings"] == []


async def test_adopted_runs_keep_their_slots(open_app, executor):
    """A new server finds the runs of the old one and starts nothing on their slots."""
    async with open_app(gpus=("a",)) as first:
        on_gpu = await new_run(first, "wants-gpus")
        await reached(first, on_gpu, "running")
        on_cpu = await new_run(first)
        await reached(first, on_cpu, "running")
        waiting = [await new_run(first, "wants-gpus"), await new_run(first)]
    async with open_app(gpus=("a",)) as second:
        assert second.services.slots.leased_gpus == {"GPU-a"}
        assert second.services.slots.cpu_runs == 1
        executor.end(on_gpu)
        executor.end(on_cpu, Exit(code=7))
        assert (await reached(second, on_gpu)).state is RunState.SUCCEEDED
        assert (await reached(second, on_cpu)).exit == Exit(code=7)
        for run_id in waiting:
            await reached(second, run_id, "running")
    assert executor.order[:2] == [on_gpu, on_cpu]
    assert set(executor.order[2:]) == set(waiting)  # which slot is free first is nobody's promise
    assert len(executor.order) == 4


async def test_a_run_queued_again_by_recovery_holds_exactly_one_slot(open_app, executor):
    """The intent was journaled, the process never began: it is started once, and its slot is counted once."""
    async with open_app(max_cpu_runs=3) as app:
        executor.refusal = OSError(errno.ENOSPC, "No space left on device")
        run_id = await new_run(app)
        await eventually(lambda: executor.refused)
    executor.refusal = None
    async with open_app(max_cpu_runs=3) as app:
        await reached(app, run_id, "running")
        assert executor.order == [run_id]
        assert app.services.slots.cpu_runs == 1
        assert app.services.scheduler.queue_length == 0
        assert [run.attempt for _, run in app.services.runs.book.history(run_id)] == [0, 1, 1, 2, 2]


async def test_a_full_disk_delays_a_start(open_app, executor):
    """No room for the process's files: the run waits, and starts by itself once there is room."""
    async with open_app() as app:
        executor.refusal = OSError(errno.ENOSPC, "No space left on device")
        run_id = await new_run(app)
        await eventually(lambda: executor.refused)
        assert app.services.runs.book.get(run_id).state is RunState.STARTING
        executor.refusal = None
        await reached(app, run_id, "running")
        executor.end(run_id)
        assert (await reached(app, run_id)).state is RunState.SUCCEEDED
        await eventually(lambda: app.services.slots.cpu_runs == 0)


async def test_a_process_that_cannot_be_started_fails_its_run_only(open_app, executor):
    """The error says why, and the next run goes on."""
    async with open_app() as app:
        executor.refusal = PermissionError(errno.EACCES, "Permission denied", "/somewhere")
        first = await new_run(app)
        failed = await reached(app, first)
        assert failed.state is RunState.FAILED
        assert failed.error is not None
        assert "Permission denied" in failed.error.message
        executor.refusal = None
        second = await new_run(app)
        await reached(app, second, "running")


async def test_an_unforeseen_error_of_one_run_reaches_no_other(open_app, executor, tmp_path):
    """A run folder that cannot be used: that run's trouble is logged and taken up again, the others go on."""
    async with open_app(max_cpu_runs=2) as app:
        first = await new_run(app)
        folder = tmp_path / "state" / "runs" / first
        (folder / "metrics.jsonl").mkdir()
        await reached(app, first, "starting")
        second = await new_run(app)
        await reached(app, second, "running")
        executor.end(second)
        await reached(app, second)
        (folder / "metrics.jsonl").rmdir()
        executor.end(first)
        assert (await reached(app, first)).state is RunState.SUCCEEDED


async def test_cancelling_in_every_state(open_app, executor):
    """Queued: at once, nothing starts. Running: asked to stop. Over: the same answer, or a conflict when it ended otherwise."""
    async with open_app() as app:
        runs = app.services.runs
        running = await new_run(app)
        await reached(app, running, "running")
        queued = await new_run(app)
        assert (await runs.stopper.cancel(queued)).state is RunState.CANCELLED
        cancelled = await runs.stopper.cancel(running)
        assert cancelled.state is RunState.CANCELLED
        assert cancelled.exit is not None
        assert cancelled.exit.signal == signal.SIGTERM
        assert await runs.stopper.cancel(running) == cancelled
        done = await new_run(app)
        await reached(app, done, "running")
        executor.end(done)
        await reached(app, done)
        with pytest.raises(Conflict, match="already ended: it succeeded"):
            await runs.stopper.cancel(done)
        assert executor.stopped == [running]
        assert executor.order == [running, done]


async def test_a_run_that_is_cancelled_in_the_moment_it_is_started_is_stopped(open_app, executor):
    """It was queued when it was asked and is not any more when that is to be written: its process must not live on."""
    async with open_app() as app:
        runs = app.services.runs
        run_id = await new_run(app)
        lock = runs.book._locks.setdefault(run_id, asyncio.Lock())
        with anyio.fail_after(60):
            while not lock.locked():  # it is for as long as the disk takes
                await anyio.lowlevel.checkpoint()
        assert runs.book.get(run_id).state is RunState.QUEUED
        assert (await runs.stopper.cancel(run_id)).state is RunState.CANCELLED
        assert executor.order == executor.stopped == [run_id]


async def test_a_run_that_is_cancelled_while_it_pauses_is_cancelled(open_app, executor):
    """Neither of the two waits for ever."""
    async with open_app() as app:
        runs = app.services.runs
        run_id = await new_run(app)
        await reached(app, run_id, "running")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runs.stopper.pause, run_id)
            await reached(app, run_id, "stopping")
            with anyio.fail_after(60):
                assert (await runs.stopper.cancel(run_id)).state is RunState.CANCELLED


async def test_a_move_that_is_meant_for_one_state_is_refused_in_another(open_app):
    """Whoever looked and then waited for the disk does not queue a run again that somebody else has started meanwhile."""
    async with open_app() as app:
        book = app.services.runs.book
        run_id = await new_run(app)
        await reached(app, run_id, "running")
        with pytest.raises(Conflict, match="is running"):
            await book.move(run_id, RunState.QUEUED, only_from=RunState.PAUSED)
        assert book.get(run_id).state is RunState.RUNNING


async def test_many_cancels_at_once_are_one(open_app, executor):
    """Twenty impatient clicks: one stop, twenty equal answers."""
    async with open_app() as app:
        run_id = await new_run(app)
        answers = []

        async def cancel() -> None:
            answers.append(await app.services.runs.stopper.cancel(run_id))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(cancel)
        assert {answer.state for answer in answers} == {RunState.CANCELLED}
        assert len(executor.stopped) <= 1
        await eventually(lambda: app.services.slots.cpu_runs == 0)


async def test_an_end_nobody_recorded_is_lost(open_app, executor):
    """An unknown exit is never reported as success."""
    async with open_app() as app:
        run_id = await new_run(app)
        await reached(app, run_id, "running")
        executor.end(run_id, None)
        run = await reached(app, run_id)
        assert run.state is RunState.LOST
        assert run.error is not None
        assert run.error.mend


async def test_slots_are_counted_for_what_runs_and_nothing_else(open_app, executor):
    """After any mixture of ends, cancels and failures every slot is free again."""
    async with open_app(gpus=("a", "b"), max_cpu_runs=2) as app:
        runs = [await new_run(app, recipe) for recipe in ("plain", "wants-gpus") * 4]
        ended = set()
        while len(ended) < len(runs):
            await eventually(lambda: [run for run in runs if app.services.runs.book.get(run).state is RunState.RUNNING])
            for run_id in runs:
                if app.services.runs.book.get(run_id).state is RunState.RUNNING:
                    if len(ended) % 2:
                        executor.end(run_id, Exit(code=len(ended) % 3))
                        await reached(app, run_id)
                    else:
                        await app.services.runs.stopper.cancel(run_id)
                    ended.add(run_id)
        slots = app.services.slots
        await eventually(lambda: slots.cpu_runs == 0 and not slots.leased_gpus)
        assert slots.take("x", Demand(gpus=2)) == ("GPU-a", "GPU-b")
        assert sorted(executor.order) == sorted(runs)


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError(), ZeroDivisionError()])
async def test_what_fails_in_handling_one_run_is_done_again_and_reaches_no_other(open_app, executor, error):
    """Starting, following and stopping each fail once, in three runs; all come to their ends, and so does a fourth."""
    async with open_app(max_cpu_runs=4) as app:
        untouched = await new_run(app)
        await reached(app, untouched, "running")
        for method in ("start", "started", "wait"):
            executor.stumbles[method] = error
            run_id = await new_run(app)
            await eventually(lambda: not executor.stumbles)
            executor.end(run_id, Exit(code=7))
            run = await reached(app, run_id)
            assert (run.state, run.exit.code) == (RunState.FAILED, 7)
        cancelled = await new_run(app)
        await reached(app, cancelled, "running")
        executor.stumbles["stop"] = error
        assert (await app.services.runs.stopper.cancel(cancelled)).state is RunState.CANCELLED
        assert not executor.stumbles
        executor.end(untouched)
        assert (await reached(app, untouched)).state is RunState.SUCCEEDED


async def test_a_slot_that_cannot_be_given_to_one_run_is_given_to_another(open_app, executor, monkeypatch):
    """The one that it fails for stays in the queue, and is tried again when the next one comes."""
    async with open_app(max_cpu_runs=4) as app:
        slots, refused = app.services.slots, set()
        take = slots.take

        def stumbling(run_id, demand):
            if not refused or run_id in refused:
                refused.add(run_id)
                raise ZeroDivisionError
            return take(run_id, demand)

        monkeypatch.setattr(slots, "take", stumbling)
        first = await new_run(app)
        await eventually(lambda: refused == {first})
        await reached(app, await new_run(app), "running")
        assert app.services.runs.book.get(first).state is RunState.QUEUED
        monkeypatch.setattr(slots, "take", take)
        await reached(app, await new_run(app), "running")
        await reached(app, first, "running")


async def test_a_cancel_that_cannot_be_recorded_ends_nothing_else(open_app, executor):
    """Whoever asked is told; the scheduler goes on. Without a scheduler nobody is promised anything."""
    async with open_app(max_cpu_runs=2) as app:
        with pytest.raises(NotFound):
            await app.services.scheduler.cancel("run_of_nobody", "cancel")
        run_id = await new_run(app)
        await reached(app, run_id, "running")
    with pytest.raises(Unavailable):
        await app.services.scheduler.cancel(run_id, "cancel")
