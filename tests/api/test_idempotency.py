"""A retry never makes a second record: every creating call takes an ``Idempotency-Key``, over real HTTP and real kills."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from litestar.testing import AsyncTestClient

from support.server import ServerProcess, start_run, wait_for_run, write_recipe
from tunesmith.app import open_services
from tunesmith.errors import Conflict
from tunesmith.experiments import ExperimentRequest
from tunesmith.idempotency import IdempotentCalls
from tunesmith.journal import Journal
from tunesmith.paths import StatePaths
from tunesmith.records import Experiment, IdempotentCall, new_id, utc_now
from tunesmith.server.application import create_app
from tunesmith.settings import Settings

_CHECKPOINT = """
exec "${TUNESMITH_PYTHON:-python}" -c '
import json, os
from datetime import datetime, timezone
from pathlib import Path
folder = Path(os.environ["TUNESMITH_RUN_DIR"]) / "checkpoints" / "checkpoint-1"
folder.mkdir(parents=True)
(folder / "weights").write_bytes(b"x")
manifest = {"format": 1, "step": 1, "created_at": datetime.now(timezone.utc).isoformat(), "files": [{"path": "weights", "bytes": 1}]}
(folder / "manifest.json").write_text(json.dumps(manifest))
'
"""

CALLS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "experiment": ("/v1/experiments", {"name": "one", "task_type": "sft"}, {"name": "other", "task_type": "sft"}),
    "run": ("/v1/experiments/{experiment}/runs", {"recipe": "quick", "notes": "a"}, {"recipe": "quick", "notes": "b"}),
    "project": (
        "/api/projects",
        {"name": "p", "dataset_name": "d.jsonl", "training_yaml_name": "t.yaml"},
        {"name": "p", "dataset_name": "e.jsonl", "training_yaml_name": "t.yaml"},
    ),
    "run of a project": ("/projects/{project}/runs", {"notes": "a"}, {"notes": "b"}),
    "dataset": ("/api/v1/datasets", {"name": "data"}, {"name": "data", "description": "another"}),
    "resumed run": ("/v1/experiments/{ended_of}/runs/{ended}/resume", {"notes": "a"}, {"notes": "b"}),
    "mark": (
        "/v1/experiments/{ended_of}/checkpoints/mark",
        {"run_id": "{ended}", "ckpt_path": "{checkpoint}", "tag_type": "release", "release_tag": "v1"},
        {"run_id": "{ended}", "ckpt_path": "{checkpoint}", "tag_type": "release", "release_tag": "v2"},
    ),
}
"""Path, body, and another body. Names in braces stand for what is ``there``."""


def filled(body: dict[str, Any], there: dict[str, str]) -> dict[str, Any]:
    return {name: value.format(**there) for name, value in body.items()}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A server that is killed and started again."""
    place = tmp_path_factory.mktemp("idempotency")
    for name, script in (("quick", "true"), ("writes", _CHECKPOINT), ("sleeps", "exec sleep 600")):
        write_recipe(place / "recipes", name, script)
    write_recipe(place / "recipes", "trains", "true", data=["messages"])
    (place / "training/datasets").mkdir(parents=True)
    (place / "training/configs").mkdir()
    (place / "training/datasets/d.jsonl").write_text('{"messages": [{"role": "user", "content": "x"}]}\n')
    (place / "training/configs/t.yaml").write_text("job: {type: quick}\n")
    environment = {"TUNESMITH_MAX_CPU_RUNS": "4", "TUNESMITH_TRAINING_DIR": str(place / "training")}
    with ServerProcess.start(place / "state", place / "recipes", environment) as server:
        yield server


@pytest.fixture(scope="module")
def there(own) -> dict[str, str]:
    """What the calls need to be there."""
    with own.client() as client:
        experiment = client.post("/v1/experiments", json={"name": "e", "task_type": "sft"}).raise_for_status().json()
        ended = start_run(client, "writes")
        wait_for_run(client, ended)
        project = {"name": "there", "dataset_name": "d.jsonl", "training_yaml_name": "t.yaml"}
        return {
            "experiment": experiment["id"],
            "project": client.post("/api/projects", json=project).raise_for_status().json()["id"],
            "ended": ended,
            "ended_of": client.get(f"/v1/runs/{ended}").json()["experiment_id"],
            "checkpoint": client.get(f"/v1/runs/{ended}/checkpoints").json()["checkpoints"][0]["path"],
        }


def id_in(answer: httpx.Response) -> str:
    body = answer.json()
    found: str = body.get("run_id") or body["id"]
    return found


def made_in(answer: httpx.Response) -> Any:
    """What tells one record from another: its id; a mark has none, but its moment."""
    body = answer.json()
    return body if "tag_type" in body else id_in(answer)


def test_a_repeat_finds_the_record(own, there):
    """Also after kill -9: the same record with 200; the key with another body is 409, and makes nothing."""
    calls = {
        name: (path.format(**there), filled(body, there), filled(other, there))
        for name, (path, body, other) in CALLS.items()
    }
    made = {}
    with own.client() as client:
        for name, (path, body, _) in calls.items():
            first = client.post(path, json=body, headers={"Idempotency-Key": f"key of {name}"})
            assert first.status_code == 201, (name, first.text)
            made[name] = made_in(first)
    own.kill9()
    own.up()
    with own.client() as client:
        for name, (path, body, other) in calls.items():
            for _ in range(2):
                repeat = client.post(path, json=body, headers={"Idempotency-Key": f"key of {name}"})
                assert (repeat.status_code, made_in(repeat)) == (200, made[name]), name
            refused = client.post(path, json=other, headers={"Idempotency-Key": f"key of {name}"})
            assert (refused.status_code, refused.json()["where"]) == (409, "Idempotency-Key"), name


def test_concurrent_repeats_make_one_run(own, there):
    """However many arrive before the first has been answered: one run, and everybody is told of it."""
    path = f"/v1/experiments/{there['experiment']}/runs"
    ready = threading.Barrier(12)

    def call(_: int) -> tuple[int, str]:
        with own.client() as client:
            ready.wait(60)
            answer = client.post(path, json={"recipe": "quick"}, headers={"Idempotency-Key": "all at once"})
            return answer.status_code, id_in(answer)

    with own.client() as client:
        before = len(client.get(path, params={"limit": 1000}).json()["runs"])
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(call, range(12)))
        assert len({run_id for _, run_id in answers}) == 1
        assert sorted(status for status, _ in answers) == [200] * 11 + [201]
        assert len(client.get(path, params={"limit": 1000}).json()["runs"]) == before + 1


def test_calls_that_need_no_key_take_one(own, there):
    """Tags and train configs are what the last call said, however often it is said: with a key, too."""
    key = {"Idempotency-Key": "not needed"}
    with own.client() as client:
        artifact = client.get(f"/v1/runs/{there['ended']}/artifacts").json()["artifacts"][0]["artifact_id"]
        path = f"/v1/runs/{there['ended']}/artifacts/{artifact}/tags"
        told = [client.post(path, json={"tags": [tag]}, headers=key) for tag in ("a", "a", "b")]
        assert [(answer.status_code, answer.json()["tags"]) for answer in told] == [
            (200, ["a"]),
            (200, ["a"]),
            (200, ["a", "b"]),
        ]
        for name in ("a.yaml", "a.yaml", "b.yaml"):
            config = {"file": (name, b"job: {type: quick}\n")}
            told_of = client.put("/api/v1/train-config", files=config, headers=key)
            assert (told_of.status_code, told_of.json()["train_config"]["filename"]) == (200, name)


def test_a_late_repeat_does_not_undo_a_newer_mark(own, there):
    """The mark that took its place is told instead, also after a restart; the keys themselves are nobody's business."""
    path = f"/v1/experiments/{there['ended_of']}/checkpoints/mark"
    body = {"run_id": there["ended"], "ckpt_path": there["checkpoint"], "tag_type": "candidate", "metrics": {"f1": 0.5}}

    def mark(client: httpx.Client, key: str, score: float) -> httpx.Response:
        return client.post(path, json={**body, "metrics": {"f1": score}}, headers={"Idempotency-Key": key})

    with own.client() as client:
        assert [mark(client, "earlier", 0.5).status_code, mark(client, "later", 0.75).status_code] == [201, 201]
    for _ in range(2):
        with own.client() as client:
            for key, score in (("earlier", 0.5), ("later", 0.75)):
                repeat = mark(client, key, score)
                assert (repeat.status_code, repeat.json()["metrics"]) == (200, {"f1": 0.75})
            assert mark(client, "earlier", 0.75).status_code == 409
            [shown] = client.get(f"/v1/runs/{there['ended']}/checkpoints").json()["checkpoints"]
            [candidate] = [one for one in shown["marks"] if one["tag_type"] == "candidate"]
            assert set(candidate) == {"tag_type", "release_tag", "metrics", "at"}
        own.kill9()
        own.up()


def test_what_failed_may_be_tried_again_with_its_key(own, there):
    """A refused request leaves nothing behind, not even its key."""
    path, key = f"/v1/experiments/{there['experiment']}/runs", {"Idempotency-Key": "mended"}
    with own.client() as client:
        assert client.post(path, json={"recipe": "no-such"}, headers=key).status_code in (400, 404, 422)
        assert client.post(path, json={"recipe": "quick"}, headers=key).status_code == 201


def test_keys_of_different_places_have_nothing_to_do_with_each_other(own, there):
    """One key for an experiment and for its run is no conflict."""
    key = {"Idempotency-Key": "everywhere"}
    with own.client() as client:
        experiment = client.post("/v1/experiments", json={"name": "x", "task_type": "sft"}, headers=key)
        run = client.post(f"/v1/experiments/{id_in(experiment)}/runs", json={"recipe": "quick"}, headers=key)
        elsewhere = client.post(f"/v1/experiments/{there['experiment']}/runs", json={"recipe": "quick"}, headers=key)
    assert [answer.status_code for answer in (experiment, run, elsewhere)] == [201] * 3


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "tab\there", "umlaut ä"], ids=repr)
def test_odd_keys_are_refused(own, key):
    """1 to 255 printable ASCII characters; HTTP takes blanks around a header's value away. The one fault is told once."""
    body = json.dumps({"name": "x", "task_type": "sft"})
    headers = {"Idempotency-Key": key.encode("latin-1"), "Content-Type": "application/json"}
    host, _, port = own.url.removeprefix("http://").partition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=60)) as connection:
        connection.request("POST", "/v1/experiments", body, headers)
        answer = connection.getresponse()
        problem = json.loads(answer.read())
    assert answer.status == 422, problem
    assert [fault["where"] for fault in problem["errors"]] == ["Idempotency-Key"]


def test_two_keys_are_refused(own):
    """Nobody could say which of them is remembered."""
    body = {"name": "two keys", "task_type": "sft"}
    with own.client() as client:
        answer = client.post("/v1/experiments", json=body, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
        assert answer.status_code == 422
        assert [fault["where"] for fault in answer.json()["errors"]] == ["Idempotency-Key"]
        assert not [one for one in client.get("/v1/experiments").json()["experiments"] if one["name"] == "two keys"]


def test_every_creating_call_takes_a_key(own):
    """Whatever answers 201 can be repeated, and so can an upload; what else answers 200 makes nothing, or is the same when
    repeated.
    """
    with own.client() as client:
        for path, methods in client.get("/openapi.json").json()["paths"].items():
            for method, call in methods.items():
                named = {parameter["name"] for parameter in call.get("parameters", [])}
                if "201" in call["responses"] or call["operationId"] == "upload_file":
                    assert "Idempotency-Key" in named, (method, path)
                    assert "200" in call["responses"], (method, path)


def in_process(state: Path) -> AsyncTestClient:
    app = create_app(open_services(Settings(state_dir=state, recipes_dir=state)))
    return AsyncTestClient(app, base_url="http://127.0.0.1")


async def _post(
    client: AsyncTestClient, path: str, body: dict[str, Any], token: str | None, key: str
) -> httpx.Response:
    headers = {"Idempotency-Key": key, **({"Authorization": f"Bearer {token}"} if token else {})}
    return await client.post(path, json=body, headers=headers)


def test_callers_do_not_share_keys(tmp_path):
    """Two API keys are two clients: what one chose says nothing of the other. An API key's token is shown once."""

    async def story() -> None:
        async with in_process(tmp_path / "state") as client:
            body = {"name": "x", "task_type": "sft"}
            before = await _post(client, "/v1/experiments", body, None, "early")
            admin = (await client.post("/v1/keys", json={"name": "a", "scope": "admin"})).json()["token"]
            first = await _post(client, "/v1/keys", {"name": "b"}, admin, "k")
            repeat = await _post(client, "/v1/keys", {"name": "b"}, admin, "k")
            assert (first.status_code, repeat.status_code) == (201, 200)
            assert repeat.json() == {**first.json(), "token": None}
            made = [
                await _post(client, "/v1/experiments", body, token, "k") for token in (admin, first.json()["token"])
            ]
            assert [answer.status_code for answer in made] == [201, 201]
            assert len({answer.json()["id"] for answer in made}) == 2
            again = await _post(client, "/v1/experiments", body, admin, "early")
            assert (again.status_code, again.json()["id"]) == (200, before.json()["id"])

    asyncio.run(story())


def test_records_of_earlier_versions_keep_their_keys(tmp_path):
    """An experiment that was created with a key before keys were stored as they are now is found."""
    paths = StatePaths(tmp_path / "state")
    paths.create()
    request = ExperimentRequest(name="old", task_type="sft")
    digest = hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
    old = Experiment(
        id=new_id("exp"),
        name="old",
        task_type="sft",
        created_at=utc_now(),
        idempotency_key="long ago",
        request_sha256=digest,
    )

    async def story() -> None:
        opened = open_services(Settings(state_dir=tmp_path / "state", recipes_dir=tmp_path))
        for journal in opened.journals:
            await journal.close()
        journal = Journal.open(paths.experiments, Experiment, dict)
        await journal.append("created", old)
        await journal.close()
        async with in_process(tmp_path / "state") as client:
            found = await _post(client, "/v1/experiments", {"name": "old", "task_type": "sft"}, None, "long ago")
            assert (found.status_code, found.json()["id"]) == (200, old.id)
            other = await _post(client, "/v1/experiments", {"name": "new", "task_type": "sft"}, None, "long ago")
            assert other.status_code == 409

    asyncio.run(story())


def test_a_key_is_known_as_long_as_the_record_has_it(tmp_path):
    """Not longer, by the server that saw it go and by the next one alike."""

    async def story() -> None:
        call = IdempotentCall(scope="s", key="k", request_sha256="h")
        record = Experiment(id=new_id("exp"), name="n", task_type="t", created_at=utc_now(), idempotency=call)
        for change in (record, msgspec.structs.replace(record, idempotency=None)):
            journal: Journal[Experiment, Any] = Journal.open(tmp_path / "e.jsonl", Experiment, Experiment)
            calls, later = IdempotentCalls(), IdempotentCalls()
            calls.follow(journal, lambda one: [one.idempotency] if one.idempotency else [])
            await journal.append("changed", change)
            await journal.close()
            later.follow(journal, lambda one: [one.idempotency] if one.idempotency else [])
            assert calls.knows(call) == later.knows(call) == (change is record)

    asyncio.run(story())


def test_a_client_that_leaves_does_not_make_two(tmp_path):
    """What it began goes on, and the repeat that comes meanwhile waits for it."""

    async def story() -> None:
        journal: Journal[Experiment, Any] = Journal.open(tmp_path / "e.jsonl", Experiment, Experiment)
        calls = IdempotentCalls()
        calls.follow(journal, lambda one: [one.idempotency] if one.idempotency else [])
        call = IdempotentCall(scope="s", key="k", request_sha256="h")
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def make() -> Experiment:
            begun.set()
            await go_on.wait()
            made = Experiment(id=new_id("exp"), name="n", task_type="t", created_at=utc_now(), idempotency=call)
            await journal.append("created", made)
            return made

        leaves = asyncio.create_task(calls.once(call, make, journal.get))
        await begun.wait()
        repeat = asyncio.create_task(calls.once(call, make, journal.get))
        leaves.cancel()
        await asyncio.wait([leaves])
        go_on.set()
        found, is_new = await repeat
        assert not is_new
        assert list(journal.summaries) == [found.id]
        with pytest.raises(Conflict):
            await calls.once(msgspec.structs.replace(call, request_sha256="other"), make, journal.get)
        await journal.close()

    asyncio.run(story())


def test_a_repeat_finds_the_newest_record_whatever_becomes_of_older_ones(tmp_path):
    """By the server that made both, when the older one changes or loses its key, and by the next one alike."""

    async def story() -> None:
        call = IdempotentCall(scope="s", key="k", request_sha256="h")
        journal: Journal[Experiment, Any] = Journal.open(tmp_path / "e.jsonl", Experiment, Experiment)
        calls = IdempotentCalls()
        calls.follow(journal, lambda one: [one.idempotency] if one.idempotency else [])

        async def make() -> Experiment:
            made = Experiment(id=new_id("exp"), name="n", task_type="t", created_at=utc_now(), idempotency=call)
            await journal.append("created", made)
            return made

        older, _ = await calls.once(call, make, journal.get)
        newer, is_new = await calls.once(call, make, journal.get, lambda made: made != older.id)
        assert is_new
        for change in ({"name": "later"}, {"idempotency": None}):
            await journal.append("changed", msgspec.structs.replace(older, **change))
            for known in (calls, IdempotentCalls()):
                if known is not calls:
                    known.follow(journal, lambda one: [one.idempotency] if one.idempotency else [])
                assert (await known.once(call, make, journal.get)) == (newer, False)
        await journal.close()

    asyncio.run(story())
