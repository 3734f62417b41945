"""Nobody but its owner can read a state folder, whatever the umask of whoever starts the server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.modes import readable_by_others
from support.receiver import receiving
from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe

ROW = b'{"messages":[{"role":"user","content":"hello"},{"role":"assistant","content":"hi"}]}\n'
WRITES = """
mkdir -p "$TUNESMITH_RUN_DIR/checkpoints/checkpoint-1/deep"
echo weights > "$TUNESMITH_RUN_DIR/checkpoints/checkpoint-1/deep/model.safetensors"
echo report > "$TUNESMITH_OUTPUT_DIR/report.json"
echo '{"tunesmith":"metrics","step":1,"total_steps":1,"loss":0.5}'
"""


@pytest.fixture
def permissive() -> Iterator[None]:
    """Whoever starts the server lets everybody do everything."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_everything_that_a_server_and_its_runs_write(tmp_path: Path, permissive: None) -> None:
    """Journals, uploads, train configs, logs, attempts, secrets, output, and what workers wrote."""
    write_recipe(tmp_path / "recipes", "writes", WRITES)
    (tmp_path / "state").mkdir()
    with (
        receiving() as receiver,
        ServerProcess.start(
            tmp_path / "state", tmp_path / "recipes", {"TUNESMITH_ALLOW_PRIVATE_URLS": "true"}
        ) as server,
        server.client() as client,
    ):
        run_id = start_run(client, "writes", callback={"url": receiver.url, "events": ["final"]})
        wait_for_run(client, run_id)
        assert any(polled(lambda: receiver.events))
        dataset = client.post("/api/v1/datasets", json={"name": "d"}).json()["id"]
        client.put(f"/api/v1/datasets/{dataset}/files", files={"file": ("a.jsonl", ROW * 9)}).raise_for_status()
        config = {"file": ("c.yaml", b"job: {type: writes}\n")}
        client.put(f"/api/v1/datasets/{dataset}/train-config", files=config).raise_for_status()
        split = {"input_file": dataset, "output_dir": str(server.state_dir / "demo" / "split")}
        client.post("/api/data/process", json=split).raise_for_status()
        server.stop()
    found = {path.name for path in (tmp_path / "state").rglob("*")}
    assert {"webhook_secret", "train.json", "model.safetensors", "exit.json", "journals.json", "run.log"} <= found
    assert readable_by_others(tmp_path / "state") == []


def test_a_folder_that_others_could_read_is_closed_to_them(tmp_path: Path, permissive: None) -> None:
    """One of the version before: at the next start, with a line in the log."""
    state = tmp_path / "state"
    for folder in (state, state / "uploads"):
        folder.mkdir()
    (state / "keys.jsonl").touch()
    assert len(readable_by_others(state)) == 3
    (tmp_path / "recipes").mkdir()
    with ServerProcess.start(state, tmp_path / "recipes") as server:
        server.stop()
    assert readable_by_others(state) == []
    assert "state_folder_closed_to_others" in server.output
    with server:
        server.up()
    assert server.output.count("state_folder_closed_to_others") == 1
