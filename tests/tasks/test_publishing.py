"""Promised outputs survive what happens to the server: put there once, whole, whenever it comes back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from task_parts import ended, start, status, write_home

from support.server import ServerProcess, polled
from tunesmith.publish import is_published, publish_file, publish_folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    home = write_home(tmp_path / "home")
    with ServerProcess.start(home / "state", home / "recipes") as server:
        yield server


def begin(server: ServerProcess) -> tuple[str, Path]:
    home = server.state_dir.parent
    with server.client() as client:
        started = start(
            client,
            strategy="lora",
            dataset_path=str(home / "rows.jsonl"),
            output_dir=str(home / "out/model"),
            config={"model_path": str(home / "model")},
        )
    return started["task_id"], home / "out/model"


def after_restart(server: ServerProcess, task_id: str) -> dict:
    server.up()
    with server.client() as client:
        return ended(client, task_id)


def test_a_training_that_ends_while_no_server_is_there(server):
    """The next one puts its model where it was promised."""
    hold = server.state_dir.parent / "recipes/lora/hold"
    hold.touch()
    task_id, place = begin(server)
    with server.client() as client:
        for task in polled(lambda: status(client, task_id)):
            if task["status"] == "running":
                break
    server.kill9()
    hold.unlink()
    assert after_restart(server, task_id)["status"] == "completed"
    assert (place / "sub/adapter_model.safetensors").stat().st_size == 2_000_000


def test_a_server_that_dies_between_the_end_and_the_receipt(server):
    """Before the copy, in the middle of it, and after it: the model is there once, whole, and nothing beside it."""
    task_id, place = begin(server)
    receipt = server.state_dir / "runs" / task_id / "published.json"
    half = place.with_name(f".{task_id}.partial")
    with server.client() as client:
        ended(client, task_id)
    for left in ("nothing", "half", "all"):
        server.kill9()
        receipt.unlink()
        if left != "all":
            shutil.rmtree(place)
        if left == "half":
            half.mkdir()
            (half / "adapter_config.json").write_text("{")
        task = after_restart(server, task_id)
        assert (task["status"], task["error"]) == ("completed", None)
        assert (place / "adapter_config.json").read_text() == "{}"
        assert [path.name for path in place.parent.iterdir()] == ["model"]


def test_what_was_taken_away_is_not_put_back(server):
    """Whoever moves a model has it moved: a restart does not bring it back."""
    task_id, place = begin(server)
    with server.client() as client:
        ended(client, task_id)
    shutil.rmtree(place)
    server.stop()
    assert after_restart(server, task_id)["status"] == "completed"
    assert not place.exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    """Neither replaced nor added to, and the half that was copied is gone."""
    output, target, beside = tmp_path / "output", tmp_path / "out/target", tmp_path / "out/.target.partial"
    for folder in (output, target):
        folder.mkdir(parents=True)
    (output / "new").write_text("new")
    (target / "old").write_text("old")
    with pytest.raises(OSError, match="not empty"):
        publish_folder(output, target, beside)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["target", "old"]
    assert not is_published(output, target)


def test_one_file_is_put_over_nothing(tmp_path):
    """A file, large or small, at a name that nobody has; whoever has it keeps it."""
    for number, size in enumerate((10, 2_000_000)):
        file, target, beside = tmp_path / "model.onnx", tmp_path / f"out/{number}.onnx", tmp_path / "out/.partial"
        file.write_bytes(b"x" * size)
        publish_file(file, target, beside)
        assert target.read_bytes() == file.read_bytes()
        assert is_published(file, target)
        file.unlink()
        file.write_bytes(b"y")
        with pytest.raises(FileExistsError):
            publish_file(file, target, beside)
        assert target.stat().st_size == size
        assert not beside.exists()
