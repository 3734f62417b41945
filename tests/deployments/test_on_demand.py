"""Engines that nobody deployed: started when a model is asked for, shared by the adapters of a base, let go of by least use."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from engine_parts import Engines as Behaving
from engine_parts import adapter, whole_model

from support.app import eventually
from support.deployed import kill, processes_of
from tunesmith.deployments import (
    DeploymentBook,
    DeploymentRequest,
    DeploymentService,
    DeploymentSummary,
    EngineArguments,
    Engines,
    HealthCheck,
    Keeper,
    Limits,
    OnDemandEngines,
    ParityCheck,
    Planner,
    Ports,
)
from tunesmith.errors import Unavailable
from tunesmith.journal import Journal
from tunesmith.net.loopback import LoopbackClient
from tunesmith.paths import StatePaths
from tunesmith.records import Deployment, Run, utc_now
from tunesmith.references import References
from tunesmith.runner import LocalExecutor, Slots
from tunesmith.runs import RunBook, RunSummary

SECONDS = 60.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Served:
    """Deployments over a state folder, whose built-in engine behaves as the test wants."""

    def __init__(self, place: Path, executor: LocalExecutor) -> None:
        self.paths = StatePaths(place / "state")
        self.paths.create()
        self.place = place
        self.engines = Behaving(place / "engines")
        self._journals = (
            Journal.open(self.paths.runs, Run, RunSummary),
            Journal.open(self.paths.deployments, Deployment, DeploymentSummary),
        )
        self.references = References(
            roots=(place,), aliases={}, paths=self.paths, book=RunBook(self._journals[0]), checkpoint=lambda _: None
        )
        self.book = DeploymentBook(self._journals[1])
        self.loopback = LoopbackClient()
        self.deployments = self._service(place, executor)
        self.on_demand = OnDemandEngines(self.deployments, self.loopback, ParityCheck(self.loopback), warm_models=2)

    def _service(self, place: Path, executor: LocalExecutor) -> DeploymentService:
        python = place / "python"
        python.write_text(f'#!/bin/sh\nexec {self.engines.command} "$@"\n')
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        engines, ports = Engines(vllm_command="", has_gpu=False, python=str(python)), Ports()
        keeper = Keeper(
            book=self.book,
            executor=executor,
            engines=engines,
            ports=ports,
            health=HealthCheck(self.loopback),
            parity=ParityCheck(self.loopback),
            paths=self.paths,
            clock=utc_now,
            limits=Limits(start_deadline_seconds=30, max_restarts=2, stop_grace_seconds=2),
        )
        return DeploymentService(
            book=self.book,
            planner=Planner(
                resolve=self.references.resolve,
                engines=engines,
                arguments=EngineArguments(),
                other_meaning=lambda _: None,
            ),
            engines=engines,
            keeper=keeper,
            ports=ports,
            leases=Slots((), 1),
            paths=self.paths,
            clock=utc_now,
            max_deployments=8,
            stop_grace_seconds=2,
        )

    def model(self, name: str) -> str:
        return str(whole_model(self.place / name))

    def adapter(self, name: str, base: str) -> str:
        return str(adapter(self.place / name, base))

    async def ask(self, reference: str, seconds: float = SECONDS):
        return await self.on_demand.engine_for(self.references.resolve(reference), seconds=seconds)

    @property
    def loaded(self) -> list[dict]:
        return [one["body"] for one in self.engines.asked if one["path"] == "/v1/load_lora_adapter"]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Served]:
        async with anyio.create_task_group() as tasks:
            await tasks.start(self.deployments.run)
            yield self
            tasks.cancel_scope.cancel()
        await self.loopback.aclose()
        for journal in self._journals:
            await journal.close()

    async def remove_all(self) -> None:
        for one in self.book.live():
            await self.deployments.remove(one.id, force=True)


@pytest.fixture
def executor() -> LocalExecutor:
    return LocalExecutor(start_deadline_seconds=30, stop_grace_seconds=2)


@pytest.fixture
async def served(tmp_path: Path, executor: LocalExecutor) -> AsyncIterator[Served]:
    async with Served(tmp_path, executor).open() as served:
        yield served
        await served.remove_all()


@pytest.mark.anyio
async def test_one_engine_for_all_who_ask_at_once(served):
    """The first starts it, the others wait for the same; whoever comes later finds it warm."""
    model, found = served.model("m"), []

    async def ask():
        found.append(await served.ask(model))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(ask)
    assert len({endpoint.deployment_id for endpoint in found}) == 1
    later = await served.ask(model)
    assert later.port == found[0].port
    (one,) = served.book.live()
    assert (one.on_demand, one.engine, one.path, one.status) == (True, "transformers", model, "running")
    words = served.engines.argv(later.port)
    assert words[:2] == ["-m", "tunesmith_workers.programs.serve"]
    assert words[words.index("--served-model-name") + 1] == later.model_name


@pytest.mark.anyio
async def test_adapters_of_a_base_share_its_engine(served):
    """Each is loaded once, under a name of its own, whoever asks at once; the base is served beside them."""
    base = served.model("m")
    first, second = served.adapter("one", base), served.adapter("two", base)
    endpoints = {}

    async def ask(reference):
        endpoints[reference] = await served.ask(reference)

    async with anyio.create_task_group() as tasks:
        for reference in (first, second, base):
            tasks.start_soon(ask, reference)
    again = await served.ask(first)
    assert {endpoint.port for endpoint in endpoints.values()} == {again.port}
    assert len({endpoint.model_name for endpoint in endpoints.values()}) == 3
    wanted = [{"lora_name": endpoints[path].model_name, "lora_path": path} for path in (first, second)]
    assert sorted(served.loaded, key=str) == sorted(wanted, key=str)
    assert len(served.book.live()) == 1


@pytest.mark.anyio
async def test_adapters_come_back_with_their_engine(served):
    """They are on record: an engine that died is started again with them, but for one whose folder is gone."""
    base = served.model("m")
    kept, gone = served.adapter("kept", base), served.adapter("gone", base)
    for reference in (kept, gone):
        endpoint = await served.ask(reference)
    (one,) = served.book.live()
    os.rename(gone, served.place / "elsewhere")  # noqa: PTH104  # at once
    assert one.process is not None
    kill(one.process.pid)
    await eventually(lambda: served.book.get(one.id).attempt == 2 and served.book.get(one.id).status == "running")
    words = served.engines.argv(served.book.get(one.id).port)
    assert [word for word in words if "=" in word] == [f"{(await served.ask(kept)).model_name}={kept}"]
    assert endpoint.model_name not in " ".join(words)


@pytest.mark.anyio
async def test_the_adapter_that_nobody_used_for_longest_makes_room(served):
    """Of sixteen in an engine."""
    base = served.model("m")
    paths = [served.adapter(f"adapter-{number}", base) for number in range(17)]
    for path in (*paths[:16], paths[0], paths[16]):
        endpoint = await served.ask(path)
        with endpoint.in_use():
            pass
    (one,) = served.book.live()
    assert {adapter.path for adapter in one.adapters} == set(paths) - {paths[1]}
    unloaded = [asked["body"]["lora_name"] for asked in served.engines.asked if "unload" in asked["path"]]
    assert unloaded == [next(asked["lora_name"] for asked in served.loaded if asked["lora_path"] == paths[1])]


@pytest.mark.anyio
async def test_the_least_recently_used_goes(served):
    """There are at most so many, and one that answers somebody stays."""
    one, two, three = (served.model(name) for name in ("a", "b", "c"))
    first, second = await served.ask(one), await served.ask(two)
    await served.ask(one)
    third = await served.ask(three)
    assert {deployment.path for deployment in served.book.live()} == {one, three}
    assert processes_of(second.deployment_id) == []
    with first.in_use(), third.in_use(), pytest.raises(Unavailable, match="answering somebody"):
        await served.ask(two)
    with third.in_use():
        await served.ask(two)
    assert {deployment.path for deployment in served.book.live()} == {two, three}


@pytest.mark.anyio
async def test_a_model_that_cannot_be_loaded(served):
    """Whoever asked learns why at once, from its log; and may try again."""
    model = served.model("m")
    served.engines.behave("exits")
    with pytest.raises(Unavailable, match="out of cheese"):
        await served.ask(model)
    with pytest.raises(Unavailable, match="exited with 3"):
        await served.ask(model)
    served.engines.behave()
    await served.ask(model)
    assert [one.status for one in served.book.page(limit=10).deployments] == ["running"], (
        "failed tries are cleared away"
    )


@pytest.mark.anyio
async def test_an_adapter_that_cannot_be_loaded(served):
    """The engine's refusal is told; nothing is put on record."""
    base = served.model("m")
    served.engines.behave("refuses")
    with pytest.raises(Unavailable, match="answers 400"):
        await served.ask(served.adapter("one", base))
    (one,) = served.book.live()
    assert one.adapters == ()


@pytest.mark.anyio
async def test_nobody_waits_without_end(served):
    """The model goes on loading, and whoever asks again finds it."""
    served.engines.behave("waits")
    model = served.model("m")
    with pytest.raises(Unavailable, match="goes on loading"):
        await served.ask(model, seconds=0.5)
    served.engines.go()
    endpoint = await served.ask(model)
    assert len(served.book.live()) == 1
    assert endpoint.port


@pytest.mark.anyio
async def test_an_engine_that_hangs_is_replaced(served):
    """By whoever asks next, unless somebody still waits for its answer."""
    model = served.model("m")
    first = await served.ask(model)
    one = served.book.get(first.deployment_id)
    assert one.process is not None
    os.kill(one.process.pid, signal.SIGSTOP)
    await eventually(lambda: served.book.get(one.id).status == "unhealthy")
    with first.in_use(), pytest.raises(Unavailable, match="not ready"):
        await served.ask(model, seconds=0.5)
    second = await served.ask(model)
    assert second.deployment_id != one.id
    assert processes_of(one.id) == []


@pytest.mark.anyio
async def test_a_deployment_serves_it_already(served):
    """Then nothing is started: not while it loads for the first time either. Asked for by its name, no other will do."""
    model = served.model("m")
    one = await served.deployments.create(DeploymentRequest(model_path=model, name="mine"))
    other = await served.deployments.create(DeploymentRequest(model_path=model))
    assert (await served.ask(model)).deployment_id in (one.id, other.id)
    served.references._deployment = served.book.known
    assert (await served.ask("mine")).deployment_id == one.id
    assert (await served.ask(other.id)).deployment_id == other.id
    assert not any(deployment.on_demand for deployment in served.book.live())


@pytest.mark.anyio
async def test_the_next_server_finds_it_warm(tmp_path, executor):
    """Engines and their adapters outlive the server."""
    async with Served(tmp_path, executor).open() as served:
        reference = served.adapter("one", served.model("m"))
        before = await served.ask(reference)
    async with Served(tmp_path, executor).open() as served:
        after = await served.ask(reference)
        assert (after.port, after.deployment_id) == (before.port, before.deployment_id)
        assert len(served.loaded) == 1
        await served.remove_all()
    assert processes_of(before.deployment_id) == []
    lines = (tmp_path / "state/deployments.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["data"]["status"] == "stopped"
