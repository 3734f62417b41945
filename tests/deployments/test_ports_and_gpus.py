"""Ports and GPUs of deployments: none is given twice, a stranger's is noticed, and what ends gives them back."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from engine_parts import whole_model

from support.app import eventually, gpu, new_run, reached
from support.server import write_recipe
from tunesmith.app import App, open_services
from tunesmith.deployments import DeploymentRequest, Ports
from tunesmith.deployments.ports import is_free
from tunesmith.errors import Conflict, InvalidInput, Unavailable
from tunesmith.records import Deployment
from tunesmith.references import ModelNames
from tunesmith.runner import PortHolder, port_holder
from tunesmith.runner.local.identity import identify
from tunesmith.settings import Settings
from tunesmith.testing import ScriptedExecutor


def test_a_port_is_given_once():
    """Until it is given back; and never one that somebody listens on."""
    ports = Ports(29_900, 29_904)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        assert not is_free(stranger.getsockname()[1])
    given = [ports.reserve() for _ in range(sum(is_free(port) for port in range(29_900, 29_905)))]
    assert len(set(given)) == len(given)
    with pytest.raises(Unavailable):
        ports.reserve()
    ports.release(given[0])
    assert ports.reserve() == given[0]
    taken = Ports(given[0], given[0])
    taken.adopt(given[0])
    with pytest.raises(Unavailable):
        taken.reserve()


def test_who_listens_is_told():
    """Nobody, a process that is ours, or anybody else; on loopback or on every address."""
    mine = identify(os.getpid())
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.create_server((host, 0)) as server:
            port = server.getsockname()[1]
            assert port_holder(port, "dep_x", mine) is PortHolder.OURS
            assert port_holder(port, "dep_x", None) is PortHolder.OTHERS
        assert port_holder(port, "dep_x", mine) is PortHolder.NOBODY
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        assert port_holder(server.getsockname()[1], "dep_x", mine) is PortHolder.OURS


def test_the_nearer_listener_is_who_answers():
    """One on loopback goes before one on every address, whoever that is."""
    with socket.socket() as everywhere, socket.socket() as near:
        for one in (everywhere, near):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        near.bind(("127.0.0.1", everywhere.getsockname()[1]))
        near.listen()
        assert port_holder(near.getsockname()[1], "dep_x", identify(os.getpid())) is PortHolder.OURS


def test_a_checkpoint_cannot_take_the_name_of_a_deployment(tmp_path):
    """Both are model references."""
    names = ModelNames({}, None, {}, {"orders"}.__contains__)
    assert "deployment" in (names.other_meaning("orders") or "")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def executor() -> ScriptedExecutor:
    return ScriptedExecutor()


@pytest.fixture
def open_app(tmp_path: Path, executor: ScriptedExecutor) -> Callable:
    """What opens the application with made-up GPUs; its scheduler and its deployments run as long as it is open."""
    whole_model(tmp_path / "state/models/small")
    write_recipe(tmp_path / "recipes", "wants-gpus", "true", resources={"gpus": 1, "cpu": True})

    @asynccontextmanager
    async def opened(*gpus: str, **settings):
        made = open_services(
            Settings(
                state_dir=tmp_path / "state",
                recipes_dir=tmp_path / "recipes",
                vllm_command="engine",
                max_engine_restarts=0,
                **settings,
            ),
            executor=executor,
            gpu_probe=lambda: tuple(map(gpu, gpus)),
        )
        async with anyio.create_task_group() as tasks:
            await tasks.start(made.services.deployments.run)
            await tasks.start(made.services.scheduler.run)
            yield made
            tasks.cancel_scope.cancel()
        await made.loopback.aclose()
        for journal in made.journals:
            await journal.close()

    return opened


async def deployed(app: App, **request) -> Deployment:
    return await app.services.deployments.create(DeploymentRequest(model_path="small", **request))


@pytest.mark.anyio
async def test_a_gpu_of_its_own(open_app, executor):
    """Leased from the start, seen by the engine, given back at the end; a run waits for it meanwhile."""
    async with open_app("A100") as app:
        one = await deployed(app)
        assert (one.engine, one.gpus) == ("vllm", ("GPU-A100",))
        with pytest.raises(Conflict, match="every GPU is in use"):
            await deployed(app)
        run_id = await new_run(app, "wants-gpus")
        await eventually(lambda: executor.order == [one.id])
        assert executor.launched[0][1].env["CUDA_VISIBLE_DEVICES"] == "GPU-A100"
        assert app.services.runs.book.get(run_id).state == "queued"
        await app.services.deployments.remove(one.id)
        assert (await reached(app, run_id, "running")).gpus == ("GPU-A100",)


@pytest.mark.anyio
async def test_the_gpu_that_is_preferred(open_app):
    """By index, UUID or a part of its name; one that is in use is a conflict, one that is not there is a wrong field."""
    async with open_app("A100", "L4", "L4-two") as app:
        assert (await deployed(app, preferred_gpu=1)).gpus == ("GPU-L4",)
        assert (await deployed(app, preferred_gpu="l4")).gpus == ("GPU-L4-two",)
        with pytest.raises(Conflict, match="GPU 1 is in use"):
            await deployed(app, preferred_gpu="1")
        assert (await deployed(app, preferred_gpu="GPU-A100")).gpus == ("GPU-A100",)
        for wrong in (3, "H100", "GPU-x", "²"):
            with pytest.raises(InvalidInput) as refused:
                await deployed(app, preferred_gpu=wrong)
            assert "0: A100" in (refused.value.mend or "")


@pytest.mark.anyio
async def test_no_cpu_slot_is_taken(open_app, tmp_path):
    """Serving on a CPU does not keep trainings waiting."""
    async with open_app() as app:
        one = await deployed(app)
        assert (one.engine, one.gpus) == ("transformers", ())
        assert app.services.slots.cpu_runs == 0
        run_id = await new_run(app, "wants-gpus")
        await reached(app, run_id, "running")


@pytest.mark.anyio
async def test_the_next_server_keeps_the_lease(open_app, executor):
    """Before anything new is started: the GPU of an engine that is alive is not free."""
    async with open_app("A100") as app:
        one = await deployed(app)
        await eventually(lambda: app.services.deployments.book.get(one.id).process is not None)
        run_id = await new_run(app, "wants-gpus")
    async with open_app("A100") as app:
        assert app.services.slots.leased_gpus == {"GPU-A100"}
        assert executor.order == [one.id], "it was adopted, not started again"
        await app.services.deployments.remove(one.id)
        await reached(app, run_id, "running")


@pytest.mark.anyio
async def test_a_failed_one_holds_nothing(open_app, executor):
    """Its GPU is free, and deleting it later takes nothing from whoever has its port by then."""
    async with open_app("A100") as app:
        one = await deployed(app)
        executor.end(one.id)
        book = app.services.deployments.book
        await eventually(lambda: book.get(one.id).status == "failed")
        await eventually(lambda: not app.services.slots.leased_gpus)
        again = await deployed(app)
        await app.services.deployments.remove(one.id)
        assert app.services.slots.leased_gpus == {"GPU-A100"}
        assert book.get(one.id).status == "failed"
        assert book.known(again.id) is not None


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["start", "started", "wait", "stop"])
async def test_the_trouble_of_one_is_not_anothers(open_app, executor, method):
    """Whatever is raised while one is handled, the others go on, and that one is taken up again."""
    async with open_app() as app:
        executor.stumbles[method] = RuntimeError("a bug")
        one, two = await deployed(app), await deployed(app)
        book = app.services.deployments.book
        await eventually(lambda: book.get(one.id).process is not None and book.get(two.id).process is not None)
        for deployment in (one, two):
            await app.services.deployments.remove(deployment.id)
            assert book.get(deployment.id).status == "stopped"
        assert not app.vitals.ended
