"""What the endpoint in the settings is told of batches and runs, what a start looks at for it, and lines of before there was one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from callback_parts import Receiver, answer, opened, receiving, sending, settled, to, until
from reporter_parts import Service, reporting, service

from tunesmith.callbacks import CallbackService
from tunesmith.journal import Journal
from tunesmith.records import CallbackEvent, DeliveryState, Endpoint, Record, Run, RunKind, RunState, new_id, utc_now
from tunesmith.reporting.openai_events import OpenAIEvents, job_id_of, type_of_end

pytestmark = pytest.mark.anyio

ENDED = datetime(2026, 12, 1, 9, 30, 15, 900_000, tzinfo=UTC)


@pytest.mark.parametrize("event_type", ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"])
async def test_the_end_of_a_batch_is_told_once(tmp_path, event_type):
    """However often it is offered, also by the next server, with another clock."""
    async with receiving() as receiver:
        for _ in range(2):
            async with sending(tmp_path) as callbacks:
                events = OpenAIEvents(callbacks, receiver.url)
                await events.offer("batch_01k", event_type, "batch_01k", ENDED)
                await events.offer("batch_01k", event_type, "batch_01k", ENDED)
                assert events.settled("batch_01k", event_type)
                [delivery] = await settled(callbacks, "batch_01k", "delivered")
        [got] = receiver.got
        assert json.loads(got.body) == {
            "id": f"evt_{delivery.id.removeprefix('dlv_')}",
            "object": "event",
            "created_at": 1796117415,
            "type": event_type,
            "data": {"id": "batch_01k"},
        }
        assert (delivery.endpoint, delivery.subject_id, got.id) == (Endpoint.WEBHOOK, "batch_01k", delivery.id)


async def test_without_an_endpoint_nothing_is_put_on_record(tmp_path):
    """And nothing is left to offer."""
    async with sending(tmp_path) as callbacks:
        events = OpenAIEvents(callbacks, "")
        assert not events.wanted
        await events.offer("batch_01k", "batch.completed", "batch_01k", ENDED)
        assert events.settled("batch_01k", "batch.completed")
        assert callbacks.page(limit=1).deliveries == []


async def test_a_dead_callback_holds_up_no_webhook(tmp_path):
    """Nor does one that answered 410; and the other way round: they are two endpoints of one run."""
    async with (
        receiving(answer(500)) as dead,
        receiving(answer(410)) as gone,
        receiving() as alive,
        sending(tmp_path, schedule=(0, 3600)) as callbacks,
    ):
        for run_id, own, webhook in (
            ("run_1", dead, alive),
            ("run_2", gone, alive),
            ("run_3", alive, dead),
            ("run_4", alive, gone),
        ):
            await callbacks.offer(run_id, to(own), CallbackEvent.STATE, "state#1", {})
            await _attempted(callbacks, run_id, 1)
            await OpenAIEvents(callbacks, webhook.url).offer(run_id, "fine_tuning.job.failed", "ftjob-1", ENDED)
            await _attempted(callbacks, run_id, 2)
            await callbacks.offer(run_id, to(own), CallbackEvent.FINAL, "final", {})
        await until(lambda: len(alive.got) == 6)
        assert [one.state for one in await settled(callbacks, "run_2", "gone", "delivered", "dropped")] == [
            DeliveryState.GONE,
            DeliveryState.DELIVERED,
            DeliveryState.DROPPED,
        ]
        assert [one.state for one in await settled(callbacks, "run_4", "gone", "delivered")] == [
            DeliveryState.DELIVERED,
            DeliveryState.GONE,
            DeliveryState.DELIVERED,
        ]


async def _attempted(callbacks: CallbackService, run_id: str, count: int) -> None:
    await until(lambda: sum(bool(one.attempts) for one in callbacks.page(run_id, limit=10).deliveries) == count)


def test_only_the_end_of_a_training_has_an_event():
    """An end that nobody knows is a failure, as everywhere else never a success."""
    of_trainings = {state: type_of_end(RunKind.TRAIN, state) for state in RunState}
    assert {state: told for state, told in of_trainings.items() if told} == {
        RunState.SUCCEEDED: "fine_tuning.job.succeeded",
        RunState.FAILED: "fine_tuning.job.failed",
        RunState.CANCELLED: "fine_tuning.job.cancelled",
        RunState.LOST: "fine_tuning.job.failed",
    }
    assert {type_of_end(kind, state) for kind in (RunKind.EVALUATE, RunKind.EXPORT) for state in RunState} == {None}


async def ended(made: Service, *, webhook: bool, kind: RunKind = RunKind.TRAIN) -> Run:
    """A run without a callback that is over; ``webhook`` is whether there was an endpoint when it ended."""
    run = Run(
        id=new_id("run"),
        kind=kind,
        recipe="sft",
        state=RunState.LOST,
        created_at=utc_now(),
        finished_at=ENDED,
        webhook=webhook,
    )
    await made.runs.append("lost", run)
    return run


async def test_a_start_reads_only_of_runs_that_are_left_untold(tmp_path):
    """Not of those that ended before there was an endpoint, nor of those that were told, nor of evaluations."""
    async with service(tmp_path) as made:
        before = [await ended(made, webhook=False) for _ in range(5)]
        scored = [await ended(made, webhook=True, kind=RunKind.EVALUATE) for _ in range(5)]
        left = [await ended(made, webhook=True) for _ in range(3)]
        async with reporting(made):
            assert [made.keys(run) for run in before + scored] == [[]] * 10
            assert [made.keys(run) for run in left] == [["webhook:fine_tuning.job.failed"]] * 3
            body = json.loads(made.callbacks.page(left[0].id, limit=1).deliveries[0].body)
            assert (body["data"], body["created_at"]) == ({"id": job_id_of(left[0].id)}, int(ENDED.timestamp()))
        assert made.book.reads == 3 + 2, "and the record and the history of the run that names a callback"
    async with service(tmp_path) as made:
        async with reporting(made):
            pass
        assert made.book.reads == 2


class DeliveryOfBefore(Record, frozen=True, kw_only=True):
    """As it was when only runs had deliveries."""

    run_id: str
    key: str
    kind: CallbackEvent
    url: str
    body: str
    created_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    attempts: tuple[()] = ()


class SummaryOfBefore(msgspec.Struct, frozen=True):
    run_id: str


async def test_deliveries_of_before_are_sent_listed_and_resent(tmp_path):
    """What waits is sent, in order with what is offered today; what was given up can be sent again. The lines stay as they are."""
    async with receiving() as receiver:
        await _written_before(tmp_path / "deliveries.jsonl", receiver)
        before = (tmp_path / "deliveries.jsonl").read_bytes()
        async with sending(tmp_path) as callbacks:
            await callbacks.offer("run_1", to(receiver), CallbackEvent.FINAL, "final", {"n": 3})
            found = await settled(callbacks, "run_1", "delivered", "failed")
            assert [one.subject_id for one in found] == ["run_1"] * 3
            assert [one.id for one in found[:2]] == ["dlv_0", "dlv_1"]
            assert [got.id for got in receiver.got] == ["dlv_1", found[2].id]
            await callbacks.resend("dlv_0")
            await settled(callbacks, "run_1", "delivered")
            assert receiver.got[-1].id == "dlv_0"
    content = (tmp_path / "deliveries.jsonl").read_bytes()
    assert content.startswith(before)
    assert b"run_id" not in content[len(before) :].replace(b'\\"run_id\\"', b"")
    journal = opened(tmp_path / "deliveries.jsonl")
    assert [summary.channel.subject_id for summary in journal.summaries.values()] == ["run_1"] * 3
    await journal.close()


async def _written_before(path: Path, receiver: Receiver) -> None:
    journal = Journal.open(path, DeliveryOfBefore, SummaryOfBefore)
    for number, state in enumerate((DeliveryState.FAILED, DeliveryState.PENDING)):
        delivery = DeliveryOfBefore(
            id=f"dlv_{number}",
            run_id="run_1",
            key=f"state#{number}",
            kind=CallbackEvent.STATE,
            url=receiver.url,
            body="{}",
            created_at=ENDED,
            state=state,
        )
        await journal.append("offered", delivery)
    await journal.close()
