"""One real server for all tests of datasets that do not need to harm it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dataset_parts import CONFIG_LIMIT, LIMIT

from support.server import ServerProcess, write_recipe

TRAINS = 'while [ ! -e "$TUNESMITH_RUN_DIR/go" ]; do sleep 0.02; done'
COMPLAINS = """
echo '{"tunesmith":"message","level":"error","text":"'$TUNESMITH_DATASET' is odd","where":"'$TUNESMITH_DATASET':7"}'
exit 1
"""
CONFIG = {
    "model": {"base": None},
    "data": {"validation_file": None},
    "training": {"max_steps": 10, "learning_rate": 0.1, "seed": 42},
}


def write_recipes(folder: Path) -> Path:
    """``trains`` and ``aligns`` end when a file ``go`` appears in their run folder; ``complains`` fails."""
    for name in ("trains", "aligns"):
        job = {"type": name, "method": None, "project": None}
        write_recipe(
            folder,
            name,
            TRAINS,
            {"job": job, **CONFIG},
            data=["messages"],
            schema={"data.validation_file": {"type": "str"}, "training.max_steps": {"min": 1, "max": 1000}},
        )
    write_recipe(folder, "complains", COMPLAINS, {"model": {"base": None}}, data=["messages"])
    write_recipe(folder, "broken", "true", kind="no-such-kind")
    return folder


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """The same recipes for a server of one's own."""
    return write_recipes(tmp_path / "recipes")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """With small limits: see LIMIT and CONFIG_LIMIT."""
    place = tmp_path_factory.mktemp("datasets")
    (place / "model").mkdir()
    settings = {
        "TUNESMITH_MAX_UPLOAD_BYTES": str(LIMIT),
        "TUNESMITH_MAX_TRAIN_CONFIG_BYTES": str(CONFIG_LIMIT),
        "TUNESMITH_MAX_CPU_RUNS": "8",
    }
    with ServerProcess.start(place / "state", write_recipes(place / "recipes"), settings) as server:
        yield server


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
