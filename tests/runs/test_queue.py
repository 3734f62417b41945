"""The order of the queue, and that a long one costs no more than a short one."""

from __future__ import annotations

import random
import weakref
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from tunesmith.journal import Journal
from tunesmith.records import Resources, Run, RunKind, RunState, new_id, utc_now
from tunesmith.runner import Demand, Slots
from tunesmith.runs import RunBook, RunSummary, Scheduler, demand_of
from tunesmith.runs.queue import RunQueue

NOW = utc_now()


class KnownRun(Run, frozen=True, kw_only=True, weakref=True):
    """One of which it is seen whether anybody still has it."""


def queued(run_id: str, *, priority: int = 0, seconds: int = 0, gpus: int = 0) -> Run:
    return KnownRun(
        id=run_id,
        kind=RunKind.TRAIN,
        recipe="plain",
        state=RunState.QUEUED,
        created_at=NOW + timedelta(seconds=seconds),
        priority=priority,
        resources=Resources(count=gpus),
    )


@pytest.mark.parametrize("seed", range(20))
def test_whoever_comes_and_goes_the_first_is_the_first_of_those_who_wait(seed):
    """As if all of them were sorted each time: by priority, then by age, then in the order in which they came."""
    luck, queue, waiting = random.Random(seed), RunQueue(), dict[str, Run]()
    for turn in range(500):
        run = queued(
            f"run_{luck.randrange(40)}", priority=luck.randrange(3), seconds=luck.randrange(9), gpus=luck.randrange(2)
        )
        if luck.random() < 0.6:
            waiting.pop(run.id, None)
            waiting[run.id] = run
            queue.add(run, demand_of(run), startable=True)
        else:
            waiting.pop(run.id, None)
            queue.remove(run.id)
        kinds = [{False}, {True}, {False, True}][turn % 3]
        order = sorted(waiting.values(), key=lambda one: (-one.priority, one.created_at))
        expected = [one for one in order if bool(one.resources.count) in kinds]
        aside = []
        for one in expected[:3]:
            place = queue.first(kinds)
            assert place is not None
            assert place.run is one
            queue.set_aside(place)
            aside.append(place)
        queue.put_back(aside)
        assert len(queue) == len(waiting)
        assert (queue.first(kinds) is None) == (not expected)


def test_what_cannot_start_here_is_counted_and_never_first():
    """Its GPUs were taken out: it waits, and holds nobody back, until it is cancelled."""
    queue = RunQueue()
    queue.add(queued("large", gpus=8, priority=5), Demand(gpus=8), startable=False)
    queue.add(queued("small", gpus=1), Demand(gpus=1), startable=True)
    first = queue.first({True, False})
    assert first is not None
    assert (first.run.id, len(queue)) == ("small", 2)
    queue.remove("large")
    assert len(queue) == 1


def test_what_was_cancelled_is_not_kept_behind_what_waits():
    """A hundred times as many as may wait at once: each leaves memory, though the first of them all still waits."""
    queue, cancelled = RunQueue(), []
    queue.add(queued("first"), Demand(gpus=0), startable=True)
    for second in range(1000):
        run = queued(new_id("run"), seconds=second)
        cancelled.append(weakref.ref(run))
        queue.add(run, Demand(gpus=0), startable=True)
        queue.remove(run.id)
    del run
    assert sum(one() is not None for one in cancelled) <= 200
    first = queue.first({False})
    assert first is not None
    assert first.run.id == "first"


@pytest.mark.anyio
async def test_a_new_run_costs_no_look_at_the_whole_queue(tmp_path: Path):
    """With a hundred thousand before it the service would stand still at each of them."""
    journal = Journal.open(tmp_path / "runs.jsonl", Run, RunSummary)
    asked: list[str] = []

    def noted(run: Run) -> Demand:
        asked.append(run.id)
        return demand_of(run)

    slots = Slots((), max_cpu_runs=1)
    slots.adopt("run_other", ())
    book = RunBook(journal)
    # Nothing is started as long as the only slot is taken.
    scheduler = Scheduler(book=book, supervisor=None, capacity=slots, demand_of=noted, launch_of=None)  # type: ignore[arg-type]
    journal.on_commit(scheduler.committed)
    async with anyio.create_task_group() as tasks:
        await tasks.start(scheduler.run)
        for second in range(200):
            await book.add(queued(new_id("run"), seconds=second))
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    await journal.close()
    assert scheduler.queue_length == 200
    assert len(asked) <= 400
