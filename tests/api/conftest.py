"""One real server for all tests of the doors that do not need to harm it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.server import ServerProcess, write_recipe

QUICK = """
echo 'a first line'
printf 'no end: \\377\\376 event: state\\n'
exec "${TUNESMITH_PYTHON:-python}" -u -c '
from tunesmith.contract.events import emit
for step in range(1, 6):
    emit("metrics", step=step, total_steps=5, epoch=step / 5, loss=1 / step)
emit("checkpoint", path="/somewhere/checkpoint-5", step=5)
print("a last line without an end", end="")
'
"""
WAITS = 'echo ready; while [ ! -e "$TUNESMITH_RUN_DIR/go" ]; do sleep 0.02; done; echo gone'
TRAINS = 'echo "data is $TUNESMITH_DATASET"; cat "$1"'


def write_recipes(folder: Path) -> Path:
    write_recipe(folder, "quick", QUICK)
    write_recipe(folder, "waits", WAITS)
    write_recipe(folder, "sleeps", "echo ready; exec sleep 600")
    write_recipe(folder, "fails", "echo 'out of cheese' >&2; exit 7")
    write_recipe(folder, "sft", "true")
    write_recipe(
        folder,
        "trains",
        TRAINS,
        {
            "model": {"base": None},
            "data": {"validation_file": None},
            "training": {"max_steps": 10, "learning_rate": 0.1, "seed": 42},
            "lora": {"r": 8, "targets": ["q", "v"]},
        },
        data=["messages"],
        aliases={"lr": "training.learning_rate", "steps": "training.max_steps"},
        schema={"data.validation_file": {"type": "str"}, "training.max_steps": {"min": 1, "max": 1000}},
    )
    write_recipe(folder, "broken", "true", kind="no-such-kind")
    return folder


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """The same recipes for a server of one's own."""
    return write_recipes(tmp_path / "recipes")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """``waits`` ends when a file ``go`` appears in its run folder."""
    place = tmp_path_factory.mktemp("doors")
    recipes = write_recipes(place / "recipes")
    with ServerProcess.start(place / "state", recipes, {"TUNESMITH_MAX_CPU_RUNS": "8"}) as server:
        yield server


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def place(server: ServerProcess) -> Path:
    """A folder below the allowed roots, with data and a model."""
    place = server.state_dir.parent
    (place / "data").mkdir()
    (place / "data/train.jsonl").write_text('{"messages": []}\n')
    (place / "data/validation.jsonl").write_text('{"messages": []}\n')
    (place / "one.jsonl").write_text('{"messages": []}\n')
    (place / "model").mkdir()
    (place / "config.yaml").write_text("job: {type: trains}\ntraining: {max_steps: 20}\n")
    return place


@pytest.fixture
def experiment(client: httpx.Client) -> str:
    answer = client.post("/v1/experiments", json={"name": "shared", "task_type": "sft"})
    experiment_id: str = answer.raise_for_status().json()["id"]
    return experiment_id
