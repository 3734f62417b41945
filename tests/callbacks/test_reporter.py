"""What a new server still has to offer of the runs of an earlier one, and what looking for it costs everybody else."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from callback_parts import until
from reporter_parts import MEASURED, STATES, reporting, service

from tunesmith.records import Callback, CallbackEvent, Progress, Run
from tunesmith.reporting.finetune_shape import END, FinetuneShape, Message
from tunesmith.reporting.reporter import Reporter

pytestmark = pytest.mark.anyio

STATE, METRICS, CHECKPOINT, FINAL = (
    CallbackEvent.STATE,
    CallbackEvent.METRICS,
    CallbackEvent.CHECKPOINT,
    CallbackEvent.FINAL,
)


WANTED = [
    ((STATE, METRICS, CHECKPOINT, FINAL), [*STATES[:3], "metrics@7", STATES[3], "final"]),
    ((STATE, METRICS), [*STATES[:3], "metrics@7", STATES[3]]),
    ((STATE,), STATES),
    ((METRICS, CHECKPOINT), ["metrics@7"]),
    ((METRICS, FINAL), ["metrics@7", "final"]),
    ((FINAL,), ["final"]),
    ((CHECKPOINT,), []),
    ((), []),
]


@pytest.mark.parametrize(("events", "keys"), WANTED)
async def test_a_new_server_offers_what_the_old_one_left_whatever_is_wanted(tmp_path, events, keys):
    """It died after any of the offers that follow from the end of a run: the rest is offered, in order, and nothing twice."""
    for done in range(len(keys) + 1):
        async with service(tmp_path / str(done)) as made:
            run = await made.add(*events)
            for key in keys[:done]:
                await made.callbacks.offer(run.id, run.callback, FINAL, key, {})
            async with reporting(made):
                assert made.keys(run) == keys


@pytest.mark.parametrize("events", [events for events, _ in WANTED if events != (METRICS, CHECKPOINT)])
async def test_a_start_reads_nothing_of_runs_that_were_told_everything(tmp_path, events):
    """Also where the end is not wanted, or nothing that follows from it: there may be years of such runs."""
    async with service(tmp_path) as made:
        runs = [await made.add(*events) for _ in range(5)]
        async with reporting(made):
            told = [made.keys(run) for run in runs]
    async with service(tmp_path) as made:
        async with reporting(made):
            assert [made.keys(run) for run in runs] == told
        assert made.book.reads == 2, "the record and the history of the run that was not told of"


async def test_a_start_reads_nothing_of_functions_that_tell_no_end(tmp_path):
    """In the shape of the finetune door, too."""
    async with service(tmp_path) as made:
        for _ in range(5):
            await made.add(METRICS, shape="finetune")
        async with reporting(made):
            pass
        assert made.book.reads == 2


@pytest.mark.parametrize("progress", [MEASURED, Progress()])
async def test_others_get_their_turn_while_a_start_looks_at_runs(tmp_path, progress):
    """The newest record has to be read to know that the last metrics are told: one run after the other, not all at once."""
    async with service(tmp_path) as made:
        for _ in range(20):
            await made.add(METRICS, progress=progress)
        async with reporting(made):
            pass
    async with service(tmp_path) as made:
        at_once = 0

        async def take_turns() -> None:
            nonlocal at_once
            while True:
                before = made.book.reads
                await asyncio.sleep(0)
                at_once = max(at_once, made.book.reads - before)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take_turns)
            async with reporting(made):
                assert made.book.reads == 22
            tasks.cancel_scope.cancel()
        assert at_once <= 2


async def test_a_model_that_is_copied_keeps_no_other_run_waiting(tmp_path):
    """The end in the shape of the finetune door is told when the model is where it was promised: copying may take minutes."""
    copied = anyio.Event()

    class Copying(FinetuneShape):
        async def end(self, run: Run, callback: Callback) -> Message:
            await copied.wait()
            return await super().end(run, callback)

    async with service(tmp_path) as made:
        made.reporter = Reporter(made.book, made.callbacks, Copying(made.paths, made.book), made.openai_events)
        slow = [await made.add(FINAL, shape="finetune") for _ in range(10)]
        async with reporting(made):
            assert [made.keys(run) for run in slow] == [[]] * 10
            copied.set()
            await until(lambda: [made.keys(run) for run in slow] == [[END]] * 10)
