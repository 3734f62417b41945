"""The same door on a plain `tunesmith serve`: built-in recipes answer in the same shape, drawn from their metrics."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from finetune_parts import file_server, metrics_of, request_for, wait_for_end

from support.receiver import receiving
from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe
from tunesmith.contract.events import event_line
from tunesmith.records import new_id
from tunesmith.reporting.curves import CurveBook

TRAINER = """
cat "$1"
exec "${TUNESMITH_PYTHON:-python}" -u -c '
import os
from pathlib import Path
from tunesmith.contract.events import emit
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
    """Frequency 2 of 5 epochs: told at 2, 4 and 5, of these points only; the request's numbers and config_param reach the recipe."""
    with receiving() as receiver, server.client() as client:
        run_id = begin(server, receiver, task_id="task-1", finetune_mode="lora", config_param={"lora": {"r": 4}})
        events = wait_for_end(receiver)
        run = wait_for_run(client, run_id)
    assert [(event["idx"], event["is_final"]) for event in events] == [(2, False), (4, False), (5, True)]
    last = events[-1]
    assert last["task_id"] == "task-1"
    assert [event["fig_param"]["x_axis"] for event in events] == [[2], [2, 4], [2, 4, 5]]
    assert all(type(x) is int for x in last["fig_param"]["x_axis"])
    assert last["fig_param"]["losses"] == [1 / step for step in (4, 8, 10)]
    assert last["fig_param"]["valid_losses"] == [2 / step for step in (4, 8, 10)]
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
    assert [event["fig_param"]["x_axis"] for event in events] == [[4], [4, 8], [4, 8, 10]]
    assert events[1]["fig_param"]["accuracies"] == [0.4, 0.8]
    assert events[1]["fig_param"]["valid_losses"] == [0.5, 0.25]


ROW = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'


def folder_with(place: Path, *names: str) -> Path:
    place.mkdir(parents=True)
    for name in names:
        (place / name).write_text(ROW)
    return place


def data_of(server, answer) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    config = yaml.safe_load((server.state_dir / "runs" / answer.json()["run_id"] / "config.yaml").read_text())
    return {name: str(config["data"][f"{name}_file"]) for name in ("train", "validation", "test")}


def test_folders_stand_for_their_data_files(server):
    """All files of rows in a folder; one that is alone stands for itself; what else lies there does not count."""
    home = server.state_dir.parent
    many = folder_with(home / "many", "b.jsonl", "a.json", ".hidden.jsonl", "notes.txt")
    one = folder_with(home / "one", "only.jsonl", "readme.md")
    with receiving() as receiver, server.client() as client:
        request = request_for(receiver, many, new_id("task"), finetune_mode="lora")
        request["input_content"]["customized_input"] |= {"valid_dataset_path": str(one)}
        request["input_content"]["customized_input"] |= {"test_dataset_path": str(one / "only.jsonl")}
        answer = client.post("/finetune", json=request)
        assert data_of(server, answer) == {
            "train": str(many),
            "validation": str(one / "only.jsonl"),
            "test": str(one / "only.jsonl"),
        }
        assert client.get(f"/v1/runs/{answer.json()['run_id']}").json()["dataset"]["path"] == str(many)
        wait_for_end(receiver)


def test_one_folder_for_all_three_stands_for_its_splits(server):
    """Nobody means to test on what is trained, where the folder has a file for each."""
    folder = folder_with(server.state_dir.parent / "splits", "train.jsonl", "val.jsonl", "test.json")
    with receiving() as receiver, server.client() as client:
        answer = client.post("/finetune", json=request_for(receiver, folder, new_id("task"), finetune_mode="lora"))
        assert data_of(server, answer) == {
            "train": str(folder / "train.jsonl"),
            "validation": str(folder / "val.jsonl"),
            "test": str(folder / "test.json"),
        }
        wait_for_end(receiver)


def test_a_folder_without_data_files_is_refused(server):
    """Each position is named, and what would have counted; a link that leads out of the roots is forbidden."""
    home = server.state_dir.parent
    empty = folder_with(home / "empty", "rows.csv")
    outside = home.parent / "outside.jsonl"
    outside.write_text(ROW)
    linked = folder_with(home / "linked", "a.jsonl")
    (linked / "b.jsonl").symlink_to(outside)
    with server.client() as client:
        for folder, status in ((empty, 400), (linked, 403)):
            answer = client.post("/finetune", json=request_for("http://127.0.0.1:9/hook", folder, new_id("task")))
            assert answer.status_code == status, answer.text
            assert len(answer.json()["errors"]) == 3
            assert answer.json()["errors"][0]["where"] == "input_content.customized_input.train_dataset_path"


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
            refused = client.post(
                "/finetune", json=request_for(receiver, files + path, new_id("task"), finetune_mode="lora")
            )
            assert refused.status_code == status, refused.text
        assert not list((server.state_dir / "downloads").glob("*/*.part"))
        before = set((server.state_dir / "downloads").iterdir())
        request = request_for(
            receiver, f"{files}/rows.csv", new_id("task"), finetune_mode="lora", config_param={"rr": 1}
        )
        assert client.post("/finetune", json=request).status_code == 422
        assert set((server.state_dir / "downloads").iterdir()) == before, "nothing of a refused request is left"


def test_an_unknown_option_is_refused(server):
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


def write_log(log: Path, steps: int, **more) -> list[bytes]:
    lines = [
        event_line("metrics", {"step": step, "epoch": step / 4, "loss": float(step), **more})
        for step in range(1, steps + 1)
    ]
    log.write_bytes(b"a line of log\n" + b"".join(lines) + b'{"tunesmith": "metrics", "epoch": "soon"}\n')
    return lines


def test_curves_stop_where_they_are_told_to(tmp_path):
    """A result that is made again says what it said at first, however far the log has grown, and whoever was asked before."""
    log = tmp_path / "run.log"
    lines = write_log(log, 8)
    upto, end = log.read_bytes().index(lines[5]), log.stat().st_size
    metrics, book = metrics_of(log), CurveBook()
    for _ in range(2):
        assert book.draw(metrics, "epoch", 1, upto=upto) == (2, figure([1, 2], "epoch", [4.0, 5.0]))
        assert book.draw(metrics, "step", 3, upto=upto) == (5, figure([3], "step", [3.0]))
        assert book.draw(metrics, "step", 3, upto=end, is_final=True) == (8, figure([3, 6, 8], "step", [3.0, 6.0, 8.0]))
        assert book.draw(metrics, "epoch", 1, upto=end, is_final=True)[1] == figure([1, 2], "epoch", [4.0, 8.0])
    assert book.draw(tmp_path / "none", "step", 1, upto=end, is_final=True) == (0, figure([], "step", []))


def test_curves_have_no_gaps(tmp_path):
    """What was measured more seldom keeps its latest value; a curve that begins later than the others is left out."""
    log = tmp_path / "run.log"
    measured = [
        {"step": 1, "loss": 4, "accuracy": 0.5},
        {"step": 2, "loss": 3},
        {"step": 3, "loss": "?", "eval_loss": 7},
        {"step": 4, "loss": 2, "accuracy": 1},
        # Another attempt resumes from step 2: what came after it is measured once more.
        {"step": 3, "loss": 2.5},
        {"step": 4, "loss": 1},
    ]
    log.write_bytes(b"".join(event_line("metrics", one) for one in measured))
    _, drawn = CurveBook().draw(metrics_of(log), "step", 1, upto=log.stat().st_size)
    assert drawn == {**figure([1, 2, 3, 4], "step", [4, 3, 2.5, 1]), "accuracies": [0.5] * 4}
    assert all(type(value) is int for value in (drawn["losses"][0], *drawn["x_axis"]))


def figure(x_axis: list[int], x_label: str, losses: list[float]) -> dict:
    empty: list[float] = []
    curves = {"losses": losses, "accuracies": empty, "valid_losses": empty, "valid_accuracies": empty}
    return {"x_axis": x_axis, "x_label": x_label, **curves}


MANY = """
exec "${TUNESMITH_PYTHON:-python}" -u -c '
from tunesmith.contract.events import emit
for step in range(1, 201):
    emit("metrics", step=step, total_steps=200, loss=1 / step)
'
"""


def test_many_results_cost_little_on_record_and_are_the_same_each_time(server):
    """200 results with all curves since the start: some hundred bytes each in the journal, and a repeat is byte for byte it."""
    write_recipe(server.recipes_dir, "many", MANY)
    journal = server.state_dir / "deliveries.jsonl"
    before = journal.stat().st_size if journal.exists() else 0
    with receiving() as receiver, server.client() as client:
        run_id = start_run(
            client, "many", callback={"url": receiver.url, "shape": "finetune", "every_steps": 1, "task_id": "many"}
        )
        events = wait_for_end(receiver)
        assert [event["idx"] for event in events] == [*range(1, 200), 200]
        assert all(event["fig_param"]["x_axis"] == list(range(1, event["idx"] + 1)) for event in events)
        assert journal.stat().st_size - before < 200 * 2 * 1200
        ids = [headers["webhook-id"] for headers, _ in receiver.got]
        for number in (150, 20, 199):
            client.post(f"/v1/deliveries/{ids[number]}/resend").raise_for_status()
        for got in polled(lambda: list(receiver.got)):
            if len(got) == len(ids) + 3:
                break
        first = {headers["webhook-id"]: body for headers, body in got[: len(ids)]}
        assert all(body == first[headers["webhook-id"]] for headers, body in got)
        assert client.get(f"/v1/deliveries/{ids[20]}").json()["body"].encode() == first[ids[20]]
        assert run_id
