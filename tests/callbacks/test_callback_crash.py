"""A real sender process, killed with SIGKILL: the schedule holds, nothing is lost, and a repeat is the same message."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from callback_parts import answer, nobody_listening, opened, receiving, silence, until
from standardwebhooks import Webhook

from tunesmith.records import Delivery

pytestmark = pytest.mark.anyio

# Offers the same three occurrences of each run at every start, as a server does that reads a log again, then sends.
_SENDER = """
import sys, anyio
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from callback_parts import sending, to
from tunesmith.records import CallbackEvent

async def main():
    folder, schedule = Path(sys.argv[1]), tuple(map(float, sys.argv[3].split(",")))
    async with sending(folder, schedule=schedule) as service:
        for step in range(3):
            await service.offer("run_1", to(sys.argv[2]), CallbackEvent.METRICS, f"metrics@{step}", {"step": step})
            print("offered", step, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@asynccontextmanager
async def sender(folder: Path, url: str, schedule: str, failpoint: str = "") -> AsyncIterator[subprocess.Popen[bytes]]:
    """A sender process; leaving the block kills it as a power cut would."""
    with (folder / "sender.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220  # its output is a file; nothing waits for it here
            [sys.executable, "-c", _SENDER, str(folder), url, schedule, str(Path(__file__).parent)],
            stdout=log,
            stderr=log,
            env={**os.environ, **({"TUNESMITH_FAILPOINT": failpoint} if failpoint else {})},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=60)


async def deliveries(folder: Path) -> list[Delivery]:
    """What is on record, in order; only while no sender runs."""
    journal = opened(folder / "deliveries.jsonl")
    found = [journal.get(delivery_id) for delivery_id in journal.summaries]
    await journal.close()
    return [delivery for delivery in found if delivery is not None]


def tries(folder: Path) -> int:
    path = folder / "deliveries.jsonl"
    return path.read_bytes().count(b'"event":"tried"') if path.exists() else 0


async def test_a_receiver_that_was_down_gets_everything_in_order_and_the_schedule_holds_across_kills(tmp_path):
    """Two kills while it is down: no try comes before its time, none is lost, each occurrence arrives once, in order."""
    schedule = ",".join(["0", "0.3", "0.6", *["0.9"] * 60])
    with nobody_listening() as port:
        url = f"http://127.0.0.1:{port}/hook"
        for seen in (1, 3):
            async with sender(tmp_path, url, schedule):
                await until(lambda seen=seen: tries(tmp_path) >= seen)
        before = await deliveries(tmp_path)
        assert [delivery.state for delivery in before] == ["pending"] * 3
        assert len(before[0].attempts) >= 3
        async with receiving(port=port) as receiver, sender(tmp_path, url, schedule):
            await receiver.until(3)
            await until(lambda: tries(tmp_path) >= len(before[0].attempts) + 3)
    after = await deliveries(tmp_path)
    assert [delivery.state for delivery in after] == ["delivered"] * 3
    assert [json.loads(got.body)["data"]["step"] for got in receiver.got] == [0, 1, 2]
    attempts = after[0].attempts
    assert attempts[: len(before[0].attempts)] == before[0].attempts
    assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
    for earlier, later in pairwise(attempts):
        assert earlier.next_at is not None
        assert later.at >= earlier.next_at


async def test_killed_after_the_receivers_200_the_repeat_is_the_same_message(tmp_path):
    """Same id, same body, a fresh stamp with a good signature; the receiver that knows the id does the work once."""
    async with receiving() as receiver:
        async with sender(tmp_path, receiver.url, "0,5", failpoint="callback.after_answer") as process:
            await receiver.until(1)
            await until(lambda: process.poll() is not None)
            assert process.returncode == -signal.SIGKILL
        assert tries(tmp_path) == 0
        async with sender(tmp_path, receiver.url, "0,5"):
            await receiver.until(4)
            await until(lambda: tries(tmp_path) >= 3)
        first, repeat, *others = receiver.got
        assert (repeat.id, repeat.body) == (first.id, first.body)
        assert len({got.id for got in [first, *others]}) == 3
        webhook = Webhook((tmp_path / "webhook_secret").read_text().strip())
        for got in receiver.got:
            webhook.verify(got.body, got.headers)
    assert [delivery.state for delivery in await deliveries(tmp_path)] == ["delivered"] * 3


async def test_killed_while_the_receiver_thinks_the_try_is_made_again(tmp_path):
    """The process dies with the request half done; nothing was recorded, so it is sent again, and retried as it should be."""
    async with receiving(silence, answer(500), answer(200)) as receiver:
        async with sender(tmp_path, receiver.url, "0,0.1"):
            await receiver.until(1)
        async with sender(tmp_path, receiver.url, "0,0.1"):
            await until(lambda: tries(tmp_path) >= 4)
        assert [json.loads(got.body)["data"]["step"] for got in receiver.got] == [0, 0, 0, 1, 2]
        assert len({got.body for got in receiver.got}) == 3
    first, *_ = await deliveries(tmp_path)
    assert [attempt.status for attempt in first.attempts] == [500, 200]
    assert first.created_at < datetime.now(UTC)


@pytest.mark.torture
async def test_killed_at_every_failpoint_what_was_offered_arrives(tmp_path):
    """Before, inside and after every write and fsync of journal and secret: the next sender delivers all, in order."""
    async with receiving() as receiver:
        for failpoint in range(1, 60):
            folder = tmp_path / str(failpoint)
            folder.mkdir()
            receiver.got.clear()
            async with sender(folder, receiver.url, "0,0.05", failpoint=str(failpoint)) as process:
                await until(lambda process=process, folder=folder: process.poll() is not None or tries(folder) == 3)
                died = process.poll() is not None
            acknowledged = (folder / "sender.log").read_text().count("offered")
            assert len(await deliveries(folder)) >= acknowledged
            async with sender(folder, receiver.url, "0,0.05"):
                await until(lambda folder=folder: tries(folder) >= 3)
            order = [json.loads(got.body)["data"]["step"] for got in receiver.got]
            assert sorted(set(order)) == [0, 1, 2]
            assert order == sorted(order)
            assert len({(got.id, got.body) for got in receiver.got}) == 3
            assert [delivery.state for delivery in await deliveries(folder)] == ["delivered"] * 3
            if not died:
                break
        assert not died
        assert failpoint > 20
