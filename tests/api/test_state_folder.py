"""One state folder, one server: a second one, or a folder that cannot be written, ends the start at once with the reason."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.refusal import refusal
from support.server import ServerProcess, start_run, wait_for_run


def test_a_second_server_leaves_the_first_unharmed(tmp_path, recipes):
    """It ends with the first one's pid and address; the first goes on, and so does its run."""
    with ServerProcess.start(tmp_path / "state", recipes) as server, server.client() as client:
        run_id = start_run(client, "sleeps")
        wait_for_run(client, run_id, lambda run: run["status"] == "running")
        files = {path: path.read_bytes() for path in server.state_dir.glob("*") if path.is_file()}
        del files[server.state_dir / "journals.json"]  # the first notes what it has done just now
        reason = refusal(server.state_dir)
        assert "in use by another server" in reason
        assert f"pid {server.pid}" in reason
        assert server.url in reason
        assert {path: path.read_bytes() for path in files} == files
        assert client.get(f"/v1/runs/{run_id}").json()["status"] == "running"
        assert client.post("/v1/experiments", json={"name": "x", "task_type": "sft"}).status_code == 201


@pytest.fixture
def mounted_read_only(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Path], None]:
    def mount(folder: Path) -> None:
        for options in (["--bind", str(folder), str(folder)], ["-o", "remount,ro,bind", str(folder)]):
            if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
                pytest.skip("a read-only mount needs root")
            if options[0] == "--bind":
                request.addfinalizer(
                    lambda: subprocess.run(["umount", "-l", str(folder)], check=True)
                )  # only once it is mounted

    return mount


@pytest.mark.parametrize("used_before", [True, False])
def test_a_read_only_folder_is_refusal(tmp_path, recipes, mounted_read_only, used_before):
    """Whether it holds state already or not."""
    state = tmp_path / "state"
    if used_before:
        with ServerProcess.start(state, recipes):
            pass
    else:
        state.mkdir()
    mounted_read_only(state)
    reason = refusal(state)
    assert str(state) in reason
    assert "read-only" in reason.lower() or "cannot be written" in reason


def test_a_folder_of_somebody_else_is_refusal(tmp_path):
    """An ordinary user cannot serve another's folder."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    for folder in tmp_path.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    try:
        subprocess.run([sys.executable, "-c", "import tunesmith.app"], cwd="/", user=65534, check=True)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("another user cannot read this installation")
    assert "belongs to user 0" in refusal(state, user=65534)


def test_a_file_in_the_place_of_the_folder_is_refusal(tmp_path):
    """With its name."""
    (tmp_path / "state").write_text("not a folder")
    assert str(tmp_path / "state") in refusal(tmp_path / "state")
