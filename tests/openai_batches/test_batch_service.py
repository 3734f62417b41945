"""Batches over models that do as the test wants: windows that end, models that cannot be served, engines that break."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from batch_parts import URL, lines_of, request

from support.app import eventually
from tunesmith.app import App, open_services
from tunesmith.app.batches import BatchFiles
from tunesmith.datasets import Details
from tunesmith.errors import Busy, MissingReference, Unavailable
from tunesmith.openai.batches import Answer, BatchRequest, BatchService
from tunesmith.openai.batches.turns import Turns
from tunesmith.records import Batch, BatchStatus, Scope, utc_now
from tunesmith.server.application import create_app
from tunesmith.settings import Settings

pytestmark = pytest.mark.anyio
OK = Answer(200, b'{"usage": {"prompt_tokens": 1, "completion_tokens": 1}}')
Asked = Callable[[str], Awaitable[Answer]]


class Models:
    """What a model does is an async function of what is said to it; one without a function cannot be served."""

    def __init__(self, **models: Asked | None) -> None:
        self.models = models
        self.prepared: list[str] = []
        self.asked: list[str] = []
        self.under_way = 0

    async def known(self, name: str) -> object:
        if name not in self.models:
            raise MissingReference(f"there is no {name}", where="model")
        return None

    async def prepare(self, name: str) -> object:
        self.prepared.append(name)
        if self.models.get(name) is None:
            raise Unavailable("out of memory", where="model")
        return None

    async def ask(self, name: str, fields: Mapping[str, Any]) -> Answer:
        said = json.loads(bytes(fields["messages"]))[-1]["content"]
        self.asked.append(said)
        self.under_way += 1
        try:
            model = self.models[name]
            assert model is not None
            return await model(said)
        finally:
            self.under_way -= 1


async def answers(_said: str) -> Answer:
    return OK


class Running:
    """A service with the files that it made."""

    def __init__(self, app: App, service: BatchService) -> None:
        self.app, self.service = app, service

    async def start(self, requests: list[dict[str, Any]]) -> Batch:
        async def chunks() -> AsyncIterator[bytes]:
            yield lines_of(requests)

        received = await self.app.services.single_files.put("r.jsonl", chunks(), lambda _: Details(purpose="batch"))
        wanted = BatchRequest(input_upload=received.upload.id, endpoint=URL, completion_window="24h")
        return await self.service.create(wanted)

    async def reached(self, batch: Batch, *statuses: BatchStatus) -> Batch:
        def is_there() -> bool:
            found = self.service.book.get(batch.id)
            return found.status in statuses if statuses else found.is_settled

        await eventually(is_there)
        return self.service.book.get(batch.id)

    def lines(self, upload_id: str | None) -> dict[str, dict[str, Any]]:
        if upload_id is None:
            return {}
        text = self.app.services.uploads.path(upload_id).read_text()
        return {line["custom_id"]: line for line in map(json.loads, text.splitlines())}


@asynccontextmanager
async def running(place: Path, models: Models, clock=utc_now, **options: Any) -> AsyncIterator[Running]:
    (place / "recipes").mkdir(exist_ok=True)
    app = open_services(Settings(state_dir=place / "state", recipes_dir=place / "recipes"), clock=clock)
    service = BatchService(
        book=app.services.openai.batches.book,
        paths=app.services.paths,
        clock=clock,
        files=BatchFiles(app.services.uploads, app.services.single_files),
        models=models,
        first_pause=0.001,
        **options,
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda *, task_status: service.run(task_status=task_status))
        yield Running(app, service)
        tasks.cancel_scope.cancel()
    for journal in app.journals:
        await journal.close()


async def test_what_is_not_answered_in_the_window_expires(tmp_path):
    async def some(said: str) -> Answer:
        if said == "slow":
            await anyio.sleep_forever()
        return OK

    async with running(tmp_path, Models(m=some), window=timedelta(seconds=2)) as it:
        requests = [request(f"f{number}", "fast", "m") for number in range(5)]
        requests += [request(f"s{number}", "slow", "m") for number in range(20)]
        batch = await it.reached(await it.start(requests))
        assert batch.status is BatchStatus.EXPIRED
        assert batch.expired_at is not None
        assert batch.expired_at >= batch.expires_at
        assert (batch.total, batch.counts.completed, batch.counts.failed) == (25, 5, 20)
        assert set(it.lines(batch.output_upload)) == {f"f{number}" for number in range(5)}
        errors = it.lines(batch.error_upload)
        assert set(errors) == {f"s{number}" for number in range(20)}
        assert {line["error"]["code"] for line in errors.values()} == {"batch_expired"}
        assert all(line["response"] is None for line in errors.values())


async def test_a_window_may_end_while_nobody_serves(tmp_path):
    held = anyio.Event()

    async def holds(said: str) -> Answer:
        if said == "hold":
            held.set()
            await anyio.sleep_forever()
        return OK

    async with running(tmp_path, Models(m=holds)) as it:
        batch = await it.start([request("a", "hi", "m"), request("b", "hold", "m")])
        await held.wait()
        await eventually(lambda: it.service.counts_of(batch).completed == 1)
    async with running(tmp_path, Models(m=holds), clock=lambda: utc_now() + timedelta(hours=25)) as it:
        ended = await it.reached(batch)
        assert (ended.status, ended.counts.completed, ended.counts.failed) == (BatchStatus.EXPIRED, 1, 1)
        assert set(it.lines(ended.output_upload)) == {"a"}


async def test_a_model_that_cannot_be_served_keeps_no_others_waiting(tmp_path):
    models = Models(broken=None, m=answers)
    async with running(tmp_path, models) as it:
        stuck = [await it.start([request("x", f"stuck {number}", "broken")]) for number in range(20)]
        mixed = await it.start([request(str(n), f"mixed {n}", "broken" if n == 3 else "m") for n in range(40)])
        await eventually(lambda: it.service.counts_of(mixed).completed == 39)
        assert (await it.reached(await it.start([request("a", "alone", "m")]))).counts.completed == 1
        assert not any(it.service.counts_of(batch).completed for batch in stuck)
        models.models["broken"] = answers  # there is memory again
        for batch in (*stuck, mixed):
            assert (await it.reached(batch)).status is BatchStatus.COMPLETED


async def test_a_request_at_which_engines_break_is_given_up_and_takes_no_others_with_it(tmp_path):
    models, breaks_so_far = Models(), 0

    async def breaks(said: str) -> Answer:
        """All that is under way breaks with it."""
        nonlocal breaks_so_far
        before = breaks_so_far
        await anyio.lowlevel.checkpoint()
        breaks_so_far += said == "poison"
        await anyio.lowlevel.checkpoint()
        if breaks_so_far > before:
            raise Unavailable("the connection broke", where="port 1")
        return OK

    models.models["m"] = breaks
    async with running(tmp_path, models) as it:
        requests = [request(f"n{number}", f"n{number}", "m") for number in range(40)]
        requests[7] = request("poison", "poison", "m")
        batch = await it.reached(await it.start(requests))
        assert (batch.status, batch.counts.completed, batch.counts.failed) == (BatchStatus.COMPLETED, 39, 1)
        assert it.lines(batch.error_upload)["poison"]["error"]["code"] == "server_error"
        assert models.asked.count("poison") == 6


async def test_a_full_queue_is_waited_for(tmp_path):
    refusals = iter([Answer(429, b"{}"), Busy("later"), Answer(503, b"{}")])

    async def full(_said: str) -> Answer:
        refusal = next(refusals, None)
        if isinstance(refusal, Exception):
            raise refusal
        return refusal or OK

    async with running(tmp_path, Models(m=full)) as it:
        batch = await it.reached(await it.start([request("a", "a", "m")]))
        assert (batch.counts.completed, batch.counts.failed) == (1, 0)


async def test_a_model_that_is_gone_is_told_in_its_lines(tmp_path):
    async def gone(_said: str) -> Answer:
        raise MissingReference("its folder is not there any more", where="model", mend="name another")

    async with running(tmp_path, Models(m=gone)) as it:
        batch = await it.reached(await it.start([request("a", "a", "m")]))
        assert batch.status is BatchStatus.COMPLETED
        line = it.lines(batch.error_upload)["a"]
        assert (line["response"], line["error"]["code"]) == (None, "model_not_found")


@pytest.mark.parametrize("body", [b"<html>\xff</html>", b"", b"[1]", b'{"a": "\xff"}'])
async def test_an_answer_that_is_no_json_becomes_a_line_all_the_same(tmp_path, body):
    async def speaks_otherwise(_said: str) -> Answer:
        return Answer(500, body)

    async with running(tmp_path, Models(m=speaks_otherwise)) as it:
        batch = await it.reached(await it.start([request("a", "a", "m")]))
        line = it.lines(batch.error_upload)["a"]
        assert line["response"]["status_code"] == 500
        assert line["response"]["body"]["error"]["type"] == "server_error"


async def test_batches_take_turns_and_never_more_than_sixteen(tmp_path):
    most, models, full = 0, Models(), anyio.Event()

    async def watches(_said: str) -> Answer:
        nonlocal most
        most = max(most, models.under_way)
        if models.under_way == 16:
            full.set()
        await full.wait()
        return OK

    models.models["m"] = watches
    async with running(tmp_path, models) as it:
        batches = [await it.start([request(str(i), f"{n}", "m") for i in range(60 + n)]) for n in range(4)]
        for batch in batches:
            await it.reached(batch)
        assert most == 16
        assert [models.asked.count(str(n)) for n in range(4)] == [60, 61, 62, 63]


async def test_whoever_wants_to_know_of_the_end_is_told_until_it_has_heard(tmp_path):
    heard: list[BatchStatus] = []

    async def fails(batch: Batch) -> None:
        heard.append(batch.status)
        raise Unavailable("the journal is closed")

    async def hears(batch: Batch) -> None:
        heard.append(batch.status)

    async with running(tmp_path, Models(m=answers), on_end=fails) as it:
        batch = await it.start([request("a", "a", "m")])
        await eventually(lambda: heard)
    async with running(tmp_path, Models(m=answers), on_end=hears) as it:
        await it.reached(batch)
    async with running(tmp_path, Models(m=answers), on_end=hears):
        pass
    assert heard == [BatchStatus.COMPLETED] * 2


async def test_a_bug_ends_one_batch_and_no_others(tmp_path):
    async def trips(said: str) -> Answer:
        if said == "bug":
            raise ZeroDivisionError
        return OK

    async with running(tmp_path, Models(m=trips)) as it:
        bad = await it.reached(await it.start([request("a", "bug", "m")]))
        good = await it.reached(await it.start([request("a", "fine", "m")]))
        assert (bad.status, bad.faults[0].code) == (BatchStatus.FAILED, "internal_error")
        assert good.status is BatchStatus.COMPLETED


async def test_a_file_that_somebody_removed_fails_its_batch(tmp_path):
    async with running(tmp_path, Models(m=answers)) as it:
        first = await it.start([request("a", "a", "m")])
        it.app.services.uploads.path(first.input_upload).unlink()
        ended = await it.reached(first)
        assert (ended.status, ended.faults[0].code) == (BatchStatus.FAILED, "file_unreadable")


async def test_a_place_that_is_given_back_goes_to_the_next_owner():
    turns, order = Turns(1), []

    async def wants(owner: str) -> None:
        async with turns.turn(owner):
            order.append(owner)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks, turns.turn("first"):
        for owner in "aaabbc":
            tasks.start_soon(wants, owner)
        with anyio.move_on_after(0):
            await wants("nobody")
        await anyio.wait_all_tasks_blocked()
        assert order == []
    assert order == list("abcaba")


async def test_the_same_batch_of_another_caller_is_one_more(tmp_path):
    """What one of them cancels, the other one still has."""
    async with running(tmp_path, Models(m=answers)) as it:
        upload = (await it.start([request("a", model="m")])).input_upload
        keys = [(await it.app.services.keys.create(name, Scope.ADMIN)).token for name in ("a", "b")]
        body = {"input_file_id": upload.replace("upl_", "file-"), "endpoint": URL, "completion_window": "24h"}
        made = []
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(it.app)), base_url="http://127.0.0.1", trust_env=False
        ) as http:
            for key in (*keys, *keys):
                answer = await http.post("/v1/batches", json=body, headers={"Authorization": f"Bearer {key}"})
                made.append(answer.raise_for_status().json()["id"])
        assert made[:2] == made[2:]
        assert len(set(made)) == 2
