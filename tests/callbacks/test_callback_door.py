"""The callbacks door over real services: what is shown, to whom, and what can be sent again."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx
import pytest
from callback_parts import answer, receiving, sending, settled, to
from litestar import Litestar
from litestar.middleware import DefineMiddleware
from standardwebhooks import Webhook

from tunesmith.access import KeyRing, KeySummary
from tunesmith.api import callbacks, problems
from tunesmith.api.access import AccessGuard
from tunesmith.journal import Journal
from tunesmith.records import CallbackEvent, Endpoint, Key, Run, RunKind, RunState, Scope, utc_now
from tunesmith.runs import RunBook, RunSummary
from tunesmith.settings import Settings

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def door(folder, webhook_url="", **options):
    """The door with its services, and a client that may call it; there is one run, run_1."""
    key_journal = Journal.open(folder / "keys.jsonl", Key, KeySummary)
    run_journal = Journal.open(folder / "runs.jsonl", Run, RunSummary)
    async with sending(folder, **options) as service:
        book = RunBook(run_journal)
        await book.add(Run(id="run_1", kind=RunKind.TRAIN, recipe="lora", state=RunState.RUNNING, created_at=utc_now()))
        keys = KeyRing(key_journal, utc_now)
        app = Litestar(
            route_handlers=callbacks.HANDLERS,
            middleware=[DefineMiddleware(AccessGuard, keys=keys)],
            exception_handlers=problems.HANDLERS,
            logging_config=None,
        )
        app.state.services = SimpleNamespace(
            callbacks=service, keys=keys, runs=SimpleNamespace(book=book), settings=Settings(webhook_url=webhook_url)
        )
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield SimpleNamespace(service=service, keys=keys, client=client)
    await key_journal.close()
    await run_journal.close()


async def test_what_was_sent_is_listed_and_shown_with_every_try(tmp_path):
    """Pages newest first; the detail has the exact body, which the official library verifies with the shown secret."""
    async with receiving(answer(500, b"busy"), answer(200)) as receiver, door(tmp_path) as opened:
        for step in range(3):
            await opened.service.offer(
                "run_1", to(receiver), CallbackEvent.METRICS, f"metrics@{step}", {"loss": step / 2}
            )
        await settled(opened.service, "run_1", "delivered")
        first = (await opened.client.get("/v1/runs/run_1/deliveries", params={"limit": 2})).json()
        rest = (
            await opened.client.get("/v1/runs/run_1/deliveries", params={"limit": 2, "cursor": first["cursor"]})
        ).json()
        assert [item["key"] for item in first["deliveries"] + rest["deliveries"]] == [
            "metrics@2",
            "metrics@1",
            "metrics@0",
        ]
        assert rest["cursor"] is None
        detail = (await opened.client.get(f"/v1/deliveries/{rest['deliveries'][0]['delivery_id']}")).json()
        assert detail["state"] == "delivered"
        assert [(attempt.get("status"), attempt.get("answer", "")) for attempt in detail["attempts"]] == [
            (500, "busy"),
            (200, ""),
        ]
        assert detail["body"].encode() == receiver.got[0].body
        assert json.loads(detail["body"])["data"] == {"run_id": "run_1", "loss": 0.0}
        about = (await opened.client.get("/v1/callbacks")).json()
        Webhook(about["signing"]["secret"]).verify(receiver.got[-1].body, receiver.got[-1].headers)
        assert about["deliveries"]["delivered"] == 3


async def test_the_secret_is_for_admins(tmp_path):
    """Others learn how to verify, and see no secret; without any key on loopback everybody is an admin."""
    async with door(tmp_path) as opened:
        assert (await opened.client.get("/v1/callbacks")).json()["signing"]["secret"].startswith("whsec_")
        tokens = {scope: (await opened.keys.create(scope, scope)).token for scope in Scope}

        async def ask(token: str) -> httpx.Response:
            return await opened.client.get("/v1/callbacks", headers={"Authorization": f"Bearer {token}"})

        for scope in (Scope.READ, Scope.WRITE):
            shown = await ask(tokens[scope])
            assert shown.status_code == 200
            assert shown.json()["signing"]["secret"] is None
            assert "whsec_" not in shown.text
        assert (await ask(tokens[Scope.ADMIN])).json()["signing"]["secret"] == opened.service.signer.secret
        assert (await opened.client.get("/v1/callbacks")).status_code == 401


async def test_sending_again_needs_a_write_key_and_a_delivery(tmp_path):
    """202, and it arrives; 403 with a read key; 404 for what there is not."""
    async with receiving() as receiver, door(tmp_path) as opened:
        await opened.service.offer("run_1", to(receiver), CallbackEvent.FINAL, "final", {})
        [delivery] = await settled(opened.service, "run_1", "delivered")
        tokens = {scope: (await opened.keys.create(scope, scope)).token for scope in Scope}

        async def again(delivery_id: str, scope: Scope) -> httpx.Response:
            headers = {"Authorization": f"Bearer {tokens[scope]}"}
            return await opened.client.post(f"/v1/deliveries/{delivery_id}/resend", headers=headers)

        assert (await again(delivery.id, Scope.READ)).status_code == 403
        assert (await again("dlv_unknown", Scope.WRITE)).status_code == 404
        answered = await again(delivery.id, Scope.WRITE)
        assert answered.status_code == 202
        assert answered.json()["state"] == "pending"
        first, second = await receiver.until(2)
        assert (first.id, first.body) == (second.id, second.body)


async def test_all_deliveries_are_listed_and_those_of_one_subject(tmp_path):
    """Newest first, page by page; of a batch as of a run, each with who asked for it. A token in the setting is not shown."""
    async with receiving() as receiver, door(tmp_path, f"{receiver.url}?token=canary") as opened:
        offers = [
            ("run_1", "metrics@1", Endpoint.CALLBACK),
            ("batch_1", "final", Endpoint.WEBHOOK),
            ("run_1", "final", Endpoint.CALLBACK),
        ]
        for subject, key, endpoint in offers:
            await opened.service.offer(subject, to(receiver), CallbackEvent.FINAL, key, {}, endpoint=endpoint)
            await settled(opened.service, subject, "delivered")
        first = (await opened.client.get("/v1/deliveries", params={"limit": 2})).json()
        rest = (await opened.client.get("/v1/deliveries", params={"limit": 2, "cursor": first["cursor"]})).json()
        listed = [
            (one["subject_id"], one["run_id"], one["endpoint"]) for one in first["deliveries"] + rest["deliveries"]
        ]
        assert listed == [
            ("run_1", "run_1", "callback"),
            ("batch_1", None, "webhook_url"),
            ("run_1", "run_1", "callback"),
        ]
        assert rest["cursor"] is None
        of_batch = (await opened.client.get("/v1/deliveries", params={"subject_id": "batch_1"})).json()["deliveries"]
        assert of_batch == first["deliveries"][1:]
        shown = (await opened.client.get("/v1/callbacks")).json()
        assert shown["webhook_url"] == f"{receiver.url}?token=***"


async def test_what_is_not_there_is_404(tmp_path):
    """An unknown run or delivery, with the mend."""
    async with door(tmp_path) as opened:
        for path in ("/v1/runs/run_unknown/deliveries", "/v1/deliveries/dlv_unknown"):
            answered = await opened.client.get(path)
            assert answered.status_code == 404
            assert answered.json()["mend"]
        assert (await opened.client.get("/v1/runs/run_1/deliveries")).json() == {"deliveries": [], "cursor": None}
