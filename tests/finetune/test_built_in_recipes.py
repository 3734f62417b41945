"""The same door on a plain `tunesmith serve`: built-in recipes answer in the same shape, drawn from their metrics."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from finetune_parts import file_server, request_for, wait_for_end

from support.receiver import receiving
from support.server import ServerProcess, start_run, wait_for_run, write_recipe
from tunesmith.curves import draw
from tunesmith.progress import event_line
from tunesmith.records import new_id

TRAINER = """
cat "$1"
exec "${TUNESMITH_PYTHON:-python}" -u -c '
import os
from pathlib import Path
from tunesmith.progress import emit
for step in range(1, 11):
    emit("metrics", step=step, total_steps=10, epoch=step / 2, loss=1 / step, token_accuracy=step / 10)
    if step % 2 == 0:
        emit("metrics", step=step, epoch=step / 2, eval_loss=2 / step)
output = Path(os.environ["TUNESMITH_OUTPUT_DIR"])
(output / "sub").mkdir()
(output / "sub/model.safetensors").write_bytes(bytes(2_000_000))
(output / "small.json").write_text("{}")
emit("metrics", step=10, test_token_accuracy=0.875)
emit("result", metrics={}, model=str(output))
'
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    place = tmp_path_factory.mktemp("built_in")
    for name, script in {"lora": TRAINER, "sft": "echo 'out of cheese'; exit 7"}.items():
        write_recipe(
            place / "recipes",
            name,
            script,
            {
                "model": {"base": None},
                "data": {"train_file": None, "validation_file": "", "test_file": ""},
                "training": {
                    "num_train_epochs": 1.0,
                    "per_device_train_batch_size": 1,
                    "learning_rate": 0.1,
                    "logging_steps": 9,
                },
                "lora": {"r": 8},
            },
            data=["messages"],
        )
    (place / "model").mkdir()
    (place / "rows.jsonl").write_text('{"messages": []}\n')
    env = {"TUNESMITH_ALLOW_PRIVATE_URLS": "true", "TUNESMITH_DEFAULT_MODEL": str(place / "model")}
    with ServerProcess.start(place / "state", place / "recipes", env) as server:
        yield server


def begin(server, receiver, **params) -> str:
    rows = server.state_dir.parent / "rows.jsonl"
    with server.client() as client:
        answer = client.post("/finetune", json=request_for(receiver, rows, **{"task_id": new_id("task"), **params}))
        assert answer.status_code == 200, answer.text
        return answer.json()["run_id"]


def test_lora_by_epochs(server):
    """Frequency 2 of 5 epochs: 2, 4 and 5; curves by epoch; the request's numbers and config_param reach the recipe."""
    with receiving() as receiver, server.client() as client:
        run_id = begin(server, receiver, task_id="task-1", finetune_mode="lora", config_param={"lora": {"r": 4}})
        events = wait_for_end(receiver)
        run = wait_for_run(client, run_id)
    assert [(event["idx"], event["is_final"]) for event in events] == [(2, False), (4, False), (5, True)]
    last = events[-1]
    assert last["task_id"] == "task-1"
    assert last["fig_param"]["x_axis"] == [1, 2, 3, 4, 5]
    assert last["fig_param"]["losses"] == [1 / step for step in (2, 4, 6, 8, 10)]
    assert last["fig_param"]["valid_losses"] == [2 / step for step in (2, 4, 6, 8, 10)]
    assert last["fig_param"]["valid_accuracies"] == []
    assert last["test_accuracy"] == 0.875
    place = Path(last["output_log_path"]).parent
    assert re.fullmatch(r"\d{14}_task-1", place.name)
    assert place.parent == server.state_dir / "finetuned/model"
    assert last["output_model_path"] == str(place / "model_files")
    assert (place / "model_files/small.json").read_text() == "{}"
    assert (place / "model_files/sub/model.safetensors").samefile(Path(run["output_path"]) / "sub/model.safetensors")
    assert not (place / "model_files/small.json").samefile(Path(run["output_path"]) / "small.json")
    assert (place / "finetune.log").read_text() == (server.state_dir / "runs" / run_id / "run.log").read_text()
    config = (server.state_dir / "runs" / run_id / "config.yaml").read_text()
    for line in ("r: 4", "num_train_epochs: 5.0", "learning_rate: 0.001", "per_device_train_batch_size: 8"):
        assert line in config
    assert config.count(str(server.state_dir.parent / "rows.jsonl")) == 3, "training, validation and test rows"


def test_lora_by_steps(server):
    """Every fourth step of ten: 4, 8 and 10, each with the validation that was measured after it."""
    with receiving() as receiver:
        begin(server, receiver, finetune_mode="lora", measurement="step", show_frequecy=4)
        events = wait_for_end(receiver)
    assert [(event["idx"], event["is_final"]) for event in events] == [(4, False), (8, False), (10, True)]
    assert events[0]["fig_param"]["accuracies"] == [0.1, 0.2, 0.3, 0.4]
    assert events[0]["fig_param"]["valid_losses"] == [None, 1.0, None, 0.5]


def test_a_failing_recipe_is_told(server):
    """`full` is the sft recipe, and here it fails."""
    with receiving() as receiver:
        begin(server, receiver, finetune_mode="full")
        (event,) = wait_for_end(receiver)
    assert event["status"] == "fail"
    assert "out of cheese" in event["error"]


def test_addresses_are_fetched_before_the_run_is_made(server):
    """What cannot be fetched is refused at once, with the status of its reason."""
    with receiving() as receiver, file_server(b'{"messages": []}\n') as files, server.client() as client:
        request = request_for(receiver, f"{files}/rows.csv", "fetched", finetune_mode="lora")
        assert client.post("/finetune", json=request).status_code == 200
        assert wait_for_end(receiver)[-1]["is_final"]
        for path, status in {"/none": 400, "/huge": 413, "/metadata": 422}.items():
            refused = client.post("/finetune", json=request_for(receiver, files + path, finetune_mode="lora"))
            assert refused.status_code == status, refused.text
        assert not list((server.state_dir / "downloads").glob("*/*.part"))


def test_an_unknown_knob_is_refused(server):
    """config_param is checked like any other hyperparameters."""
    with server.client() as client:
        rows = server.state_dir.parent / "rows.jsonl"
        request = request_for("http://127.0.0.1:9/hook", rows, "unknown", config_param={"rr": 1})
        answer = client.post("/finetune", json=request)
        assert answer.status_code == 422
        assert "rr" in answer.text
    assert not list((server.state_dir / "finetuned").glob("*/*_unknown")), "nothing is left of it"


def test_any_run_may_be_told_of_in_this_shape(server):
    """Through every other door: a callback with the shape; the run's id stands for the task's."""
    with receiving() as receiver, server.client() as client:
        rows = str(server.state_dir.parent / "rows.jsonl")
        callback = {"url": receiver.url, "shape": "finetune", "every_epochs": 5}
        model = str(server.state_dir.parent / "model")
        run_id = start_run(client, "lora", callback=callback, dataset={"name": rows}, model=model)
        events = wait_for_end(receiver)
    assert {event["task_id"] for event in events} == {run_id}
    assert [event["idx"] for event in events] == [5]


def test_curves_stop_where_they_are_told_to(tmp_path):
    """A result that is offered again after a crash says what it said at first, however far the log has grown."""
    log = tmp_path / "run.log"
    lines = [event_line("metrics", {"step": step, "epoch": step / 4, "loss": float(step)}) for step in range(1, 9)]
    log.write_bytes(b"a line of log\n" + b"".join(lines) + b'{"tunesmith": "metrics", "epoch": "soon"}\n')
    upto = log.read_bytes().index(lines[5])
    assert draw(log, upto, "epoch") == (2, {**FLAT, "x_axis": [1, 2], "x_label": "epoch", "losses": [4.0, 5.0]})
    assert draw(log, None, "step")[1]["losses"] == [float(step) for step in range(1, 9)]
    assert draw(tmp_path / "none", None, "step") == (0, {**FLAT, "x_axis": [], "x_label": "step", "losses": []})
    assert msgspec.json.encode(draw(log, None, "epoch"))


FLAT: dict[str, list[float]] = {"accuracies": [], "valid_losses": [], "valid_accuracies": []}
