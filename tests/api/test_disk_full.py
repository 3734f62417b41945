"""A full disk refuses new work, harms nothing stored and no training, and is over when there is room again."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe
from tunesmith.journal import verify

EXPERIMENT = {"name": "x", "task_type": "sft"}
WAITS = 'while [ ! -e "$TUNESMITH_RUN_DIR/go" ]; do sleep 0.02; done; exit 3'


@contextlib.contextmanager
def files_limited_to(pid: int, size: int) -> Iterator[None]:
    """No file of this process, nor of one it starts from now on, may grow beyond ``size``."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def assert_full(answer) -> None:
    assert answer.status_code == 507, answer.text
    assert "free" in answer.json()["mend"]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob("*.jsonl")}


def test_a_full_journal_refuses_new_work_and_recovers(tmp_path):
    """507 for what cannot be written down, reads go on, nothing is half-written, and no restart is needed."""
    write_recipe(tmp_path / "recipes", "waits", WAITS)
    write_recipe(tmp_path / "recipes", "quick", "exit 0")
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes", {"TUNESMITH_MAX_CPU_RUNS": "2"}) as server:
        with server.client() as client:
            experiment = client.post("/v1/experiments", json=EXPERIMENT).json()["id"]
            training = start_run(client, "waits")
            wait_for_run(client, training, lambda run: run["status"] == "running")
            while (server.state_dir / "experiments.jsonl").stat().st_size < (
                server.state_dir / "runs.jsonl"
            ).stat().st_size:
                client.post("/v1/experiments", json=EXPERIMENT).raise_for_status()
            before, folders = contents(server.state_dir), set((server.state_dir / "runs").iterdir())
            with files_limited_to(server.pid, (server.state_dir / "runs.jsonl").stat().st_size + 10):
                for key in (None, "a key", "a key"):
                    headers = {"Idempotency-Key": key} if key else {}
                    assert_full(client.post("/v1/experiments", json=EXPERIMENT, headers=headers))
                assert_full(client.post(f"/v1/experiments/{experiment}/runs", json={"recipe": "quick"}))
                assert_full(client.post(f"/v1/runs/{training}/cancel"))
                assert client.get(f"/v1/runs/{training}").json()["status"] == "running"
                assert client.get("/v1/experiments").status_code == 200
                assert contents(server.state_dir) == before
                assert set((server.state_dir / "runs").iterdir()) == folders
                for path in before:
                    assert verify(path).sound
                # The training ends by itself; that cannot be written down yet.
                (server.state_dir / "runs" / training / "go").touch()
                noticed = server.state_dir / "runs" / training / "progress.json"
                assert any(polled(noticed.exists))
                assert client.get(f"/v1/runs/{training}").json()["status"] == "running"
            ended = wait_for_run(client, training)
            assert (ended["status"], ended["exit"]["code"]) == ("failed", 3)
            again = client.post("/v1/experiments", json=EXPERIMENT, headers={"Idempotency-Key": "a key"})
            assert again.status_code == 201
            quick = client.post(f"/v1/experiments/{experiment}/runs", json={"recipe": "quick"}).json()["run_id"]
            assert wait_for_run(client, quick)["status"] == "succeeded"
        server.kill9()
        server.up()
        with server.client() as client:
            assert client.get(f"/v1/runs/{training}").json()["status"] == "failed"


def test_a_file_whose_dataset_could_not_be_written_has_one_when_it_is_sent_again(tmp_path):
    """As a client does after 507: it is the same file, and can be trained on without a restart."""
    (tmp_path / "recipes").mkdir()
    file = {"file": ("rows.jsonl", b'{"messages": [{"role": "user", "content": "x"}]}\n')}
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes") as server, server.client() as client:
        client.post("/api/v1/datasets", json={"name": "d", "description": "d" * 4000}).raise_for_status()
        with files_limited_to(server.pid, (server.state_dir / "datasets.jsonl").stat().st_size + 10):
            assert client.post("/v1/files", files=file, data={"purpose": "batch"}).status_code == 507
            (listed,) = client.get("/v1/files").json()["data"]
            assert client.get(f"/api/v1/datasets/{listed['id']}").status_code == 404
        again = client.post("/v1/files", files=file, data={"purpose": "batch"}).raise_for_status().json()
        assert again == listed
        assert client.get(f"/api/v1/datasets/{listed['id']}").status_code == 200
        assert client.post("/v1/files", files=file, data={"purpose": "batch"}).json() == listed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return filler


def test_a_full_disk_costs_no_run_its_end(small_disk, tmp_path):
    """Not even the shim can write, nor the server its log: what ended meanwhile is told truly once there is room."""
    write_recipe(tmp_path / "recipes", "waits", WAITS)
    environment = {"TUNESMITH_MAX_CPU_RUNS": "2"}
    with (
        ServerProcess.start(small_disk / "state", tmp_path / "recipes", environment) as server,
        server.client() as client,
    ):
        training = start_run(client, "waits")
        wait_for_run(client, training, lambda run: run["status"] == "running")
        experiment = client.post("/v1/experiments", json=EXPERIMENT).json()["id"]
        run_folder = server.state_dir / "runs" / training
        filler = fill(small_disk)
        # What was written last may have left room on its page: use it up, too.
        refused = [
            client.post("/v1/experiments", json={**EXPERIMENT, "goal": "g" * 4096}),
            client.post(f"/v1/experiments/{experiment}/runs", json={"recipe": "waits"}),
        ]
        for answer in refused:
            assert_full(answer)
        os.mknod(run_folder / "go")
        for path in polled(lambda: run_folder / "attempts/1/exit.json.tmp"):
            if path.exists():
                break
        assert client.get(f"/v1/runs/{training}").json()["status"] == "running"
        assert client.get("/healthz").status_code == 200
        filler.unlink()
        ended = wait_for_run(client, training)
        assert (ended["status"], ended["exit"]["code"]) == ("failed", 3)
        assert client.post("/v1/experiments", json=EXPERIMENT).status_code == 201
        assert all(verify(path).sound for path in contents(server.state_dir))
