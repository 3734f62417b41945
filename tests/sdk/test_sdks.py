"""Unmodified `openai` SDKs, each in an interpreter of its own, against a real server with a real model.

Two variables say where they are: TUNESMITH_TEST_OPENAI_PYTHONS (interpreters, separated by `:`) and TUNESMITH_TEST_OPENAI_NODE (a folder
whose node_modules has the package). `nox -s sdk` makes both. The first interpreter trains in full and has to reach the bar; the
others train shortly, and ask less.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.deployed import kill
from support.real_model import pulled_model
from support.server import ServerProcess, clean_environment
from tunesmith.demo import orders

pytestmark = [pytest.mark.sdk, pytest.mark.training, pytest.mark.timeout(1500)]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODEL = "SmolLM2-135M-Instruct"
ALIAS = "gpt-4o-mini-2024-07-18"
SCRIPT_SECONDS = 1200
FULL = ("--bar", "0.95", "--epochs", "2")
SHORT = ("--rows", "20", "--epochs", "1", "--batch-size", "4")
BEGUN = "the stream has begun\n"

PYTHONS = [Path(one) for one in os.environ.get("TUNESMITH_TEST_OPENAI_PYTHONS", "").split(":") if one]
NODE = os.environ.get("TUNESMITH_TEST_OPENAI_NODE", "")


def of_each_sdk(pythons=PYTHONS):
    """One test for each interpreter, or one that says why there is none."""
    missing = pytest.mark.skip(reason="TUNESMITH_TEST_OPENAI_PYTHONS names no interpreter with openai: run nox -s sdk")
    cases = [pytest.param(python, id=python.parents[1].name) for python in pythons]
    return pytest.mark.parametrize("python", cases or [pytest.param(None, marks=missing, id="none")])


@dataclass(frozen=True)
class Served:
    """A server that has a key, and the demo's orders in files."""

    server: ServerProcess
    key: str
    data: Path

    def environment(self, **more: str) -> dict[str, str]:
        """What a script is given: the address, the key, and nothing of how these tests are run."""
        address = {"OPENAI_BASE_URL": f"{self.server.url}/v1", "OPENAI_API_KEY": self.key, "NO_PROXY": "127.0.0.1"}
        return {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **address, **more}

    def arguments(self, train: str, name: str) -> list[str]:
        files = {"train": train, "validation": "validation", "held-out": "held_out"}
        return [*(f"--{option}={self.data / file}.jsonl" for option, file in files.items()), "--suffix", name]

    def client(self):
        return self.server.client(headers={"Authorization": f"Bearer {self.key}"})


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A state folder with the model in it."""
    home = tmp_path_factory.mktemp("sdk")
    models = home / "state" / "models"
    pulled = pulled_model(home)
    if not pulled.is_relative_to(home.resolve()):
        shutil.copytree(pulled, models / MODEL)
    return home


@pytest.fixture(scope="module")
def data(place) -> Path:
    """The demo's orders: all to train on, few of them, some to validate on, and those held out."""
    rows = {
        "train": orders.train(),
        "few": orders.train(96),
        "validation": orders.train(orders.TRAIN_ROWS + 24)[orders.TRAIN_ROWS :],
        "held_out": orders.held_out(),
    }
    folder = place / "data"
    folder.mkdir()
    for name, some in rows.items():
        (folder / f"{name}.jsonl").write_text(orders.to_json_lines(some))
    return folder


@pytest.fixture(scope="module")
def served(place, data) -> Iterator[Served]:
    made = subprocess.run(
        [sys.executable, "-m", "tunesmith", "keys", "create", "sdk", "--scope", "admin", "--state-dir", "state"],
        cwd=place,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    with ServerProcess.start(place / "state", ROOT / "recipes", {"TUNESMITH_ALIASES": f"{ALIAS}={MODEL}"}) as server:
        served = Served(server, made.stdout.strip(), data)
        yield served
        with served.client() as client:
            for run in client.get("/v1/runs", params={"limit": 1000}).json()["runs"]:
                client.post(f"/v1/runs/{run['run_id']}/cancel")
            for one in client.get("/api/v1/deployments").json():
                client.delete(f"/api/v1/deployments/{one['deployment_id']}", params={"force": True})


def finish(command: Sequence[str | Path], environment: Mapping[str, str], server: ServerProcess) -> None:
    """Runs a script to its end; where it fails, its output and the end of the server's log are the failure."""
    done = subprocess.run(
        command,
        cwd=HERE,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SCRIPT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{done.stdout}\n--- the server's log ends with\n{server.output[-3000:]}", pytrace=False)
    sys.stdout.write(done.stdout)


@of_each_sdk()
def test_the_journey(served, python):
    """Files, a job that is paused on its way, answers, a batch, and everything deleted; the first trains in full: 95 % exact."""
    train, how = ("train", FULL) if python == PYTHONS[0] else ("few", SHORT)
    given = served.arguments(train, f"sync-{PYTHONS.index(python)}")
    finish([python, HERE / "journey.py", *given, *how], served.environment(), served.server)


@of_each_sdk(PYTHONS[-1:])
def test_the_asynchronous_journey(served, python):
    """The same with coroutines: files at once, answers at once, pages and streams by `async for`."""
    given = served.arguments("few", f"async-{PYTHONS.index(python)}")
    finish([python, HERE / "journey_async.py", *given, *SHORT], served.environment(), served.server)


@of_each_sdk()
def test_the_behaviours(served, python):
    """Each thing that the SDKs rely on: retries, pages, names, deletions, validation, streams, errors."""
    given = served.arguments("few", f"behaves-{PYTHONS.index(python)}")
    finish([python, HERE / "behaviours.py", *given], served.environment(), served.server)


@pytest.mark.skipif(
    not NODE, reason="TUNESMITH_TEST_OPENAI_NODE names no folder with the npm package openai: run nox -s sdk"
)
@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_the_journey_in_node(served):
    """The journey of the npm package."""
    command = ["node", HERE / "journey.mjs", *served.arguments("few", "node"), *SHORT]
    finish(command, served.environment(OPENAI_NODE_FOLDER=NODE), served.server)


@of_each_sdk()
def test_a_stream_whose_engine_dies_raises(served, python):
    """Half an answer is never taken for a whole one. The last test: it kills the engine."""
    command = [python, HERE / "broken_stream.py", *served.arguments("few", "broken")]
    with subprocess.Popen(
        command,
        env=served.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as script:
        try:
            said, _, _ = select.select([script.stdout], [], [], 180)
            first = script.stdout.readline() if said else ""
            if first == BEGUN:
                kill_engines(served)
            rest, _ = script.communicate("\n", timeout=120)
        finally:
            script.kill()
    if script.returncode != 0:
        pytest.fail(f"{first}{rest}\n--- the server's log ends with\n{served.server.output[-3000:]}", pytrace=False)


def kill_engines(served: Served) -> None:
    with served.client() as client:
        pids = [one["pid"] for one in client.get("/api/v1/deployments").json() if one["on_demand"] and one["pid"]]
    assert pids, "an engine answers"
    for pid in pids:
        kill(pid)
