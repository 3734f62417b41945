"""What is offered arrives: signed, in order, tried again as the Standard Webhooks text says, without holding up others."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import anyio
import anyio.to_thread
import pytest
from callback_parts import answer, drip, opened, receiving, sending, settled, silence, to, until
from standardwebhooks import Webhook, WebhookVerificationError

from tunesmith.callbacks import CallbackService
from tunesmith.callbacks.due import seconds_until_due
from tunesmith.errors import Conflict, InvalidInput, NotFound, StateFolderUnusable
from tunesmith.journal import LOCAL_DISK
from tunesmith.net.guarded import Answer
from tunesmith.records import BodySource, CallbackEvent, Delivery, Uptime, utc_now

pytestmark = pytest.mark.anyio

STATE, METRICS = CallbackEvent.STATE, CallbackEvent.METRICS
SLOW = (0, 3600, 3600)


async def offer_steps(service: CallbackService, run_id: str, where, count: int, *, start: int = 0) -> None:
    for step in range(start, start + count):
        await service.offer(run_id, to(where), METRICS, f"metrics@{step}", {"step": step})


def steps(receiver) -> list[int]:
    return [json.loads(got.body)["data"]["step"] for got in receiver.got]


async def test_the_official_library_accepts_what_arrives(tmp_path):
    """And rejects it with one byte changed, or with another id or time."""
    async with receiving() as receiver, sending(tmp_path) as service:
        await service.offer("run_1", to(receiver), STATE, "state#1", {"status": "succeeded", "名": "训练"})
        [got] = await receiver.until(1)
        webhook = Webhook(service.signer.secret)
        content = webhook.verify(got.body, got.headers)
        assert content["type"] == "run.state"
        assert content["data"] == {"run_id": "run_1", "status": "succeeded", "名": "训练"}
        assert datetime.fromisoformat(content["timestamp"]).tzinfo is not None
        assert got.headers["content-type"] == "application/json"
        assert "." not in got.id
        for body, headers in (
            (got.body.replace(b"succeeded", b"succeedeD"), got.headers),
            (got.body, {**got.headers, "webhook-id": got.id + "x"}),
            (got.body, {**got.headers, "webhook-timestamp": str(int(got.headers["webhook-timestamp"]) + 1)}),
        ):
            with pytest.raises(WebhookVerificationError):
                webhook.verify(body, headers)


async def test_an_old_stamp_is_rejected_and_every_try_has_a_fresh_one(tmp_path):
    """What is resent an hour later carries that hour's stamp, with the same id and body."""
    now = datetime.now(UTC) - timedelta(hours=1)
    async with receiving(answer(200)) as receiver, sending(tmp_path, clock=lambda: now) as service:
        await service.offer("run_1", to(receiver), STATE, "state#1", {})
        [old] = await receiver.until(1)
        [delivery] = await settled(service, "run_1", "delivered")
        with pytest.raises(WebhookVerificationError, match="too old"):
            Webhook(service.signer.secret).verify(old.body, old.headers)
        now = datetime.now(UTC)
        await service.resend(delivery.id)
        _, new = await receiver.until(2)
        Webhook(service.signer.secret).verify(new.body, new.headers)
        assert (new.id, new.body) == (old.id, old.body)


async def test_the_finetune_shape_is_sent_as_it_was_given(tmp_path):
    """No envelope, the same order of fields; signed all the same."""
    body = {"status": "success", "task_id": "t1", "is_final": False, "fig_param": {"losses": [0.5, None]}}
    async with receiving() as receiver, sending(tmp_path) as service:
        await service.offer("run_1", to(receiver, shape="finetune"), METRICS, "result@2", body)
        [got] = await receiver.until(1)
        assert got.body == json.dumps(body, separators=(",", ":")).encode()
        Webhook(service.signer.secret).verify(got.body, got.headers)


async def test_a_run_is_told_in_order_one_after_the_other(tmp_path):
    """A failure holds the later ones back until it has got through."""
    async with receiving(answer(200), answer(500), answer(503), answer(200)) as receiver, sending(tmp_path) as service:
        await offer_steps(service, "run_1", receiver, 5)
        found = await settled(service, "run_1", "delivered")
        assert steps(receiver) == [0, 1, 1, 1, 2, 3, 4]
        assert len({got.id for got in receiver.got}) == 5
        assert len({got.body for got in receiver.got}) == 5
        assert [len(delivery.attempts) for delivery in found] == [1, 3, 1, 1, 1]
        assert [attempt.status for attempt in found[1].attempts] == [500, 503, 200]
        assert receiver.connections < 5


async def test_offering_an_occurrence_again_makes_no_second_delivery(tmp_path):
    """Neither at the same moment, nor after it arrived, nor after a restart; another run's is another one."""
    async with receiving() as receiver:
        async with sending(tmp_path) as service:
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(offer_steps, service, "run_1", receiver, 1)
            await settled(service, "run_1", "delivered")
        async with sending(tmp_path) as service:
            await offer_steps(service, "run_1", receiver, 1)
            await offer_steps(service, "run_2", receiver, 1)
            await settled(service, "run_2", "delivered")
            assert [service.offered("run_2", key) for key in ("metrics@0", "metrics@1")] == [True, False]
            assert len(receiver.got) == 2
            assert len({got.id for got in receiver.got}) == 2


async def test_an_offer_is_on_disk_when_it_returns_and_sent_by_the_next_server(tmp_path):
    """Nobody was sending when it was made."""
    async with receiving() as receiver:
        journal = opened(tmp_path / "deliveries.jsonl")
        service = CallbackService(
            journal=journal, client=_Nobody(), secret_path=tmp_path / "webhook_secret", clock=utc_now
        )
        await offer_steps(service, "run_1", receiver, 3)
        await journal.close()
        async with sending(tmp_path) as later:
            await settled(later, "run_1", "delivered")
        assert steps(receiver) == [0, 1, 2]


class _Nobody:
    async def post(self, url, body, headers) -> Answer:
        raise AssertionError("nothing is sent while nobody runs the sender")


async def test_410_stops_the_run_and_a_resend_takes_it_up_again(tmp_path):
    """What waits and what comes later is dropped, visibly, also after a restart; other runs are told on."""
    async with receiving(answer(410), answer(200)) as receiver:
        async with sending(tmp_path) as service:
            await offer_steps(service, "run_1", receiver, 3)
            gone, *_ = await settled(service, "run_1", "gone", "dropped")
        async with sending(tmp_path) as service:
            await offer_steps(service, "run_1", receiver, 1, start=3)
            found = await settled(service, "run_1", "gone", "dropped")
            assert [delivery.state for delivery in found] == ["gone", "dropped", "dropped", "dropped"]
            assert len(receiver.got) == 1
            await offer_steps(service, "run_2", receiver, 1)
            await settled(service, "run_2", "delivered")
            with pytest.raises(Conflict, match=gone.id):
                await service.resend(found[1].id)
            await service.resend(gone.id)
            await service.resend(found[1].id)
            await offer_steps(service, "run_1", receiver, 1, start=4)
            found = await settled(service, "run_1", "delivered", "dropped")
            assert [delivery.state for delivery in found] == [
                "delivered",
                "delivered",
                "dropped",
                "dropped",
                "delivered",
            ]


async def test_429_waits_as_long_as_it_was_asked_to(tmp_path):
    """Also after a restart, though the schedule would have been quicker."""
    async with receiving(answer(429, retry_after="1"), answer(200)) as receiver:
        async with sending(tmp_path) as service:
            await offer_steps(service, "run_1", receiver, 2)
            [_, first] = service.page("run_1", limit=2).deliveries
            await until(lambda: service.get(first.id).attempts)  # answered, and on record: else it would be made again
        async with sending(tmp_path) as service:
            first, _ = await settled(service, "run_1", "delivered")
    assert [attempt.status for attempt in first.attempts] == [429, 200]
    assert first.attempts[1].at - first.attempts[0].at >= timedelta(seconds=1)


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)], ids=["forward", "back"])
@pytest.mark.parametrize("restarts", [False, True])
async def test_the_schedule_holds_though_the_clock_is_set(tmp_path, jump, restarts):
    """An hour forward or back after the first try, with the same server or a new one: the second comes in its time."""
    wait = 0.4
    shift = timedelta()
    arrived: list[float] = []

    async def refuse(stream) -> None:
        arrived.append(time.monotonic())
        await stream.send(answer(500))

    async def accept(stream) -> None:
        arrived.append(time.monotonic())
        await stream.send(answer(200))

    def clock() -> datetime:
        return utc_now() + shift

    async with receiving(refuse, accept) as receiver:
        async with sending(tmp_path, clock=clock, schedule=(0, wait)) as service:
            await offer_steps(service, "run_1", receiver, 1)
            [first] = service.page("run_1", limit=1).deliveries
            await until(lambda: service.get(first.id).attempts)
            shift = jump
            if not restarts:
                await settled(service, "run_1", "delivered")
        if restarts:
            async with sending(tmp_path, clock=clock, schedule=(0, wait)) as service:
                await settled(service, "run_1", "delivered")
    assert arrived[1] - arrived[0] > wait * 0.9


@pytest.mark.parametrize(("jump", "bounds"), [(-7200, (0, 100)), (50, (50, 50)), (7200, (-9000, 0))])
def test_after_a_boot_the_wall_clock_decides_within_what_was_to_be_waited(jump, bounds):
    """The uptime says nothing then: never longer than the wait that was decided on, at once if it is over."""
    decided = utc_now()
    delivery = Delivery(
        id="dlv_1",
        subject_id="run_1",
        key="end",
        kind=STATE,
        url="",
        created_at=decided,
        next_at=decided + timedelta(seconds=100),
        due_uptime=Uptime(boot_id="before", seconds=5.0),
    )
    left = seconds_until_due(
        delivery, now=decided + timedelta(seconds=jump), up=Uptime(boot_id="after", seconds=1_000_000.0)
    )
    assert bounds[0] <= left <= bounds[1]


async def test_a_redirect_is_a_failure_and_is_not_followed(tmp_path):
    """Where it points sees nothing; after the last try the delivery is given up and the next one has its turn."""
    async with receiving() as sentinel, receiving(answer(302, location=sentinel.url)) as receiver:
        async with sending(tmp_path) as service:
            await offer_steps(service, "run_1", receiver, 2)
            found = await settled(service, "run_1", "failed")
        assert [len(delivery.attempts) for delivery in found] == [4, 4]
        assert steps(receiver) == [0] * 4 + [1] * 4
        assert sentinel.connections == 0


async def test_every_kind_of_failure_is_on_record(tmp_path):
    """A slow drip, a silent receiver, a closed port, a refused address: status or error, time, next try; then given up."""
    (tmp_path / "hasty").mkdir()
    async with (
        receiving(drip) as dripping,
        receiving(silence) as silent,
        sending(tmp_path / "hasty", post_seconds=0.2) as hasty,
        sending(tmp_path) as patient,
    ):
        cases = [
            (hasty, dripping.url, "within 0.2 seconds"),
            (hasty, silent.url, "within 0.2 seconds"),
            (patient, "http://127.0.0.1:1/", "Connect call failed"),
            (patient, "http://169.254.169.254/", "169.254.169.254 must not be reached"),
        ]
        for number, (service, url, _) in enumerate(cases):
            await service.offer(f"run_{number}", to(url), STATE, "state#1", {})
        for number, (service, _, text) in enumerate(cases):
            [delivery] = await settled(service, f"run_{number}", "failed")
            assert [attempt.number for attempt in delivery.attempts] == [1, 2, 3, 4]
            for attempt, after in pairwise(delivery.attempts):
                assert attempt.status is None
                assert text in attempt.error
                assert attempt.next_at <= after.at
            assert delivery.attempts[-1].next_at is None


async def test_of_an_answer_only_the_beginning_is_kept(tmp_path):
    """Whatever bytes it has."""
    async with receiving(answer(200, b"\x00\xff" + b"x" * 100_000)) as receiver, sending(tmp_path) as service:
        await offer_steps(service, "run_1", receiver, 1)
        [delivery] = await settled(service, "run_1", "delivered")
        assert delivery.attempts[0].answer == "\x00\ufffd" + "x" * 1998


async def test_resend_starts_the_schedule_anew_and_keeps_the_earlier_tries(tmp_path):
    """A given up one arrives once the receiver is well; a waiting one is tried at once."""
    async with receiving(answer(500)) as receiver, sending(tmp_path) as service:
        await offer_steps(service, "run_1", receiver, 1)
        [failed] = await settled(service, "run_1", "failed")
        receiver.replies[:] = [answer(500), answer(200)]
        await service.resend(failed.id)
        [delivered] = await settled(service, "run_1", "delivered")
        assert [attempt.number for attempt in delivered.attempts] == [1, 2, 3, 4, 5, 6]
        with pytest.raises(NotFound):
            await service.resend("dlv_unknown")
    async with receiving(answer(500), answer(200)) as receiver, sending(tmp_path, schedule=SLOW) as service:
        await offer_steps(service, "run_2", receiver, 1)
        await receiver.until(1)
        [waiting] = service.page("run_2", limit=1).deliveries
        await until(lambda: service.get(waiting.id).attempts)
        await service.resend(waiting.id)
        await settled(service, "run_2", "delivered")


async def test_one_dead_receiver_with_1000_pending_does_not_delay_others(tmp_path):
    """A thousand of one run, and a thousand runs with one each; it takes every connection and never answers."""
    async with receiving(silence) as dead, receiving() as alive, sending(tmp_path, post_seconds=100) as service:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(offer_steps, service, "run_long", dead, 1000)
            for number in range(1000):
                tasks.start_soon(offer_steps, service, f"run_{number}", dead, 1)
        await dead.until(2)
        with anyio.fail_after(50):  # the dead ones are given up after 100 seconds
            await offer_steps(service, "run_other", alive, 20)
            await settled(service, "run_other", "delivered")
        assert steps(alive) == list(range(20))
        assert dead.connections <= 8


async def test_stopping_while_a_try_is_under_way_loses_nothing(tmp_path):
    """It is made again by the next server, with the same id and body."""
    async with receiving(silence, answer(200)) as receiver:
        async with sending(tmp_path) as service:
            await offer_steps(service, "run_1", receiver, 1)
            await receiver.until(1)
        async with sending(tmp_path) as service:
            [delivery] = await settled(service, "run_1", "delivered")
        assert len(delivery.attempts) == 1
        first, second = receiver.got
        assert (first.id, first.body) == (second.id, second.body)


async def test_a_full_disk_delays_the_record_of_a_try_and_does_not_repeat_it(tmp_path):
    """The receiver hears it once."""

    class FullOnce:
        writes = 0

        def write(self, descriptor: int, content: memoryview) -> int:
            self.writes += 1
            if self.writes == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return LOCAL_DISK.write(descriptor, content)

        def sync(self, descriptor: int) -> None:
            LOCAL_DISK.sync(descriptor)

        def cut(self, descriptor: int, length: int) -> None:
            LOCAL_DISK.cut(descriptor, length)

    async with receiving() as receiver, sending(tmp_path, disk=FullOnce()) as service:
        await offer_steps(service, "run_1", receiver, 1)
        await settled(service, "run_1", "delivered")
        assert len(receiver.got) == 1


async def test_what_cannot_be_said_in_json_is_refused_to_the_one_who_offers_it(tmp_path):
    """And leaves no trace; a number that is not finite becomes null."""
    async with receiving() as receiver, sending(tmp_path) as service:
        for body in ({"x": object()}, {"x": "\ud800"}, {1j: 2}):
            with pytest.raises(InvalidInput):
                await service.offer("run_1", to(receiver), STATE, "state#1", body)
        assert service.page("run_1", limit=10).deliveries == []
        await service.offer("run_1", to(receiver), STATE, "state#1", {"loss": float("nan")})
        [got] = await receiver.until(1)
        assert json.loads(got.body)["data"]["loss"] is None


async def test_a_spoilt_secret_stops_the_start_with_the_reason(tmp_path):
    """Rather than sign with something that receivers do not know."""
    journal = opened(tmp_path / "deliveries.jsonl")
    secret = tmp_path / "webhook_secret"
    service = CallbackService(journal=journal, client=_Nobody(), secret_path=secret, clock=utc_now)
    secret.write_text("whsec_short\n")
    with pytest.raises(StateFolderUnusable, match="webhook_secret"):
        await service.run()
    await journal.close()


async def test_pages_are_newest_first_and_complete(tmp_path):
    """A cursor goes on where the page before ended."""
    async with receiving() as receiver, sending(tmp_path) as service:
        await offer_steps(service, "run_1", receiver, 7)
        await settled(service, "run_1", "delivered")
        keys: list[str] = []
        cursor = None
        for _ in range(3):
            page = service.page("run_1", limit=3, cursor=cursor)
            keys += [delivery.key for delivery in page.deliveries]
            cursor = page.cursor
        assert cursor is None
        assert keys == [f"metrics@{step}" for step in range(6, -1, -1)]
        assert service.page("run_unknown", limit=3).deliveries == []
        assert service.counts()["delivered"] == 7


async def test_bodies_that_take_long_to_make_leave_threads_to_others(tmp_path):
    """They are read from logs of any length, for many runs at once after a start: everything else needs threads, too."""
    may_read = threading.Event()

    def make_body(delivery: Delivery) -> bytes:
        may_read.wait(60)
        return delivery.subject_id.encode()

    async with sending(tmp_path, make_body=make_body, schedule=SLOW) as service:
        made: set[bytes] = set()

        async def make(delivery: Delivery) -> None:
            made.add(await service.body(delivery))

        try:
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    source = BodySource(fields={}, log_upto=0)
                    await service.offer(f"run_{number}", to("http://127.0.0.1:1/"), METRICS, "result@1", source)
                    [delivery] = service.page(f"run_{number}", limit=1).deliveries
                    tasks.start_soon(make, delivery)
                await anyio.wait_all_tasks_blocked()
                with anyio.fail_after(30):
                    await anyio.to_thread.run_sync(lambda: None)
                assert not made
                may_read.set()
        finally:
            may_read.set()
        assert made == {b"run_%d" % number for number in range(50)}
