"""Health tells the truth about the whole service, and a service that cannot do its work does not stay."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import httpx
import pytest

from support.app import eventually
from support.server import clean_environment, polled
from tunesmith.vitals import Vitals

# The reporter of this server ends, some with an error, when a file appears; everything else is as always.
LOSES_ITS_REPORTER = """
import asyncio, dataclasses, socket, sys
from pathlib import Path
import anyio
from tunesmith.app import open_services
from tunesmith.errors import TunesmithError
from tunesmith.server.serve import serve_app
from tunesmith.settings import Settings

place = Path(sys.argv[1])

class Mortal:
    async def run(self, *, task_status):
        task_status.started()
        while not (place / "die").exists():
            await anyio.sleep(0.02)
        if sys.argv[2] == "error":
            raise ZeroDivisionError("nobody thought of this")
        if sys.argv[2] == "cancelled":
            awaited = asyncio.get_running_loop().create_future()
            awaited.cancel()
            await awaited

opened = open_services(Settings(state_dir=place / "state", recipes_dir=place / "recipes"))
listener = socket.create_server(("127.0.0.1", 0))
(place / "port").write_text(str(listener.getsockname()[1]))
try:
    serve_app(dataclasses.replace(opened, reporter=Mortal()), listener)
except TunesmithError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("path", ["/healthz", "/health"])
def test_head_is_answered_as_get_without_a_body(client, path):
    """What load balancers ask."""
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert client.get(path).json()["status"] == "ok"


@pytest.mark.parametrize(
    ("how", "told"),
    [("error", "nobody thought of this"), ("end", "it came to its end"), ("cancelled", "CancelledError")],
)
def test_a_background_task_that_ends_makes_health_503_and_ends_the_process(tmp_path, how, told):
    """The answer names the task; a moment later the process exits with an error, for a supervisor to start a new one."""
    (tmp_path / "recipes").mkdir()
    script = [sys.executable, "-c", textwrap.dedent(LOSES_ITS_REPORTER), str(tmp_path), how]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(script, stderr=log, env=clean_environment())
    try:
        url = f"http://127.0.0.1:{port_of(tmp_path)}"
        assert httpx.get(f"{url}/healthz", trust_env=False, timeout=60).status_code == 200
        (tmp_path / "die").touch()
        answers = (httpx.get(f"{url}/health", trust_env=False, timeout=60) for _ in polled(lambda: None))
        problem = next(answer for answer in answers if answer.status_code != 200)
        assert problem.status_code == 503
        assert problem.headers["content-type"] == "application/problem+json"
        assert problem.json()["where"] == "reporter"
        assert told in problem.json()["detail"]
        assert httpx.head(f"{url}/healthz", trust_env=False, timeout=60).status_code == 503
        assert server.wait(60) == 1
    finally:
        server.kill()
        server.wait()
    assert "reporter ended" in (tmp_path / "log").read_text()


def port_of(place: Path) -> int:
    written = place / "port"
    return next(int(written.read_text()) for _ in polled(lambda: None) if written.exists() and written.read_text())


@pytest.mark.anyio
async def test_the_end_of_one_task_ends_no_other():
    """Deliveries go on while the process waits for its end."""
    ticks = 0

    async def goes_on(*, task_status) -> None:
        nonlocal ticks
        task_status.started()
        while True:
            await anyio.sleep(0.001)
            ticks += 1

    async def fails(*, task_status) -> None:
        task_status.started()
        raise OSError("by itself")

    async def awaits_what_was_cancelled(*, task_status) -> None:
        task_status.started()
        await cancelled_future()

    vitals = Vitals()
    async with anyio.create_task_group() as tasks:
        await vitals.start(tasks, "goes on", goes_on)
        await vitals.start(tasks, "fails", fails)
        await vitals.start(tasks, "is cancelled", awaits_what_was_cancelled)
        await eventually(lambda: len(vitals.ended) == 2)
        before = ticks
        await eventually(lambda: ticks > before)
        tasks.cancel_scope.cancel()
    assert list(vitals.ended) == ["fails", "is cancelled"]
    assert vitals.ended["is cancelled"] == "CancelledError()"


@pytest.mark.anyio
async def test_a_task_that_is_cancelled_with_its_group_has_not_ended_by_itself():
    """Nor if an await of its own was cancelled at the same time, nor if it was cancelled as asyncio does it."""
    awaited = []

    async def waits(*, task_status) -> None:
        awaited.append((asyncio.get_running_loop().create_future(), asyncio.current_task()))
        task_status.started()
        await awaited[-1][0]

    vitals = Vitals()
    for end in ("group", "both", "task"):
        async with anyio.create_task_group() as tasks:
            await vitals.start(tasks, "waits", waits)
            future, task = awaited[-1]
            if end == "both":
                future.cancel()
            if end == "task":
                task.cancel()
            else:
                tasks.cancel_scope.cancel()
    assert vitals.ended == {}


@pytest.mark.anyio
async def test_a_task_that_is_cancelled_before_it_has_started_stops_the_start():
    """With an error: nobody may take it for the end of the server."""

    async def cannot(*, task_status) -> None:
        await cancelled_future()

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            await Vitals().start(tasks, "callbacks", cannot)
    assert caught.group_contains(RuntimeError, match="callbacks")


def cancelled_future() -> asyncio.Future[None]:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


@pytest.mark.anyio
async def test_what_fails_before_it_has_started_stops_the_start():
    async def cannot(*, task_status) -> None:
        raise OSError("the secret is unreadable")

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            await Vitals().start(tasks, "callbacks", cannot)
    assert caught.group_contains(OSError, match="the secret is unreadable")
