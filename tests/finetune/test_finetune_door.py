"""POST /finetune with a function of one's own, end to end: what is called back, what is written, what is refused."""

from __future__ import annotations

import contextlib
import copy
import re
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from finetune_parts import file_server, function_server, request_for, wait_for_end

from support.receiver import receiving
from support.server import polled, wait_for_run
from tunesmith.records import new_id

FIELDS = [
    ("task_id",),
    ("call_back_api",),
    ("input_content",),
    ("input_content", "customized_input"),
    *[("input_content", "customized_input", f"{split}_dataset_path") for split in ("train", "valid", "test")],
    ("param_dict",),
    *[
        ("param_dict", name)
        for name in (
            "finetune_mode",
            "config_param",
            "show_frequecy",
            "measurement",
            "total_epoch_number",
            "batch_size",
            "lr",
        )
    ],
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("finetune")


@pytest.fixture(scope="module")
def server(place):
    with function_server(place) as server:
        yield server


@pytest.fixture(scope="module")
def rows(server, place) -> Path:
    return place / "data/rows.csv"


def started(server, request: dict[str, Any]) -> dict[str, Any]:
    with server.client() as client:
        answer = client.post("/finetune", json=request)
        assert answer.status_code == 200, answer.text
        return answer.json()


def test_epochs_are_told_every_second_and_at_the_end(server, rows, place):
    """Frequency 2 of 5 epochs: callbacks at 2, 4 and 5, the last one final, each in exactly the agreed shape."""
    with receiving() as receiver:
        answer = started(server, request_for(receiver, rows, task_id="epochs_任务"))
        events = wait_for_end(receiver)
    with server.client() as client:
        assert wait_for_run(client, answer["run_id"])["status"] == "succeeded"
    assert [(event["idx"], event["is_final"]) for event in events] == [(2, False), (4, False), (5, True)]
    model = Path(answer["output_model_path"])
    assert events[0] == {
        "task_id": "epochs_任务",
        "status": "success",
        "is_final": False,
        "idx": 2,
        "fig_param": {
            "x_axis": [1, 2],
            "x_label": "epoch",
            "losses": [1, 0.5],
            "accuracies": [0, 0.5],
            "valid_losses": [2, 1],
            "valid_accuracies": [0.5, 0.5],
        },
        "test_accuracy": 0.75,
        "output_model_path": str(model),
        "output_log_path": str(model.parent / "finetune.log"),
    }
    assert model.is_relative_to(place / "data/finetuned/digits")
    assert re.fullmatch(r"\d{14}_epochs_任务/model_files", str(model.relative_to(place / "data/finetuned/digits")))
    assert (model / "best_model_epoch.pth").read_bytes() == b"weights"
    assert (model.parent / "finetune.log").read_text() == f"reading rows\nfrom {place / 'base.pth'}\n"


def test_the_script_is_not_run_again_to_load_its_function(server, rows, place):
    """What stands below `if __name__ == "__main__"` would start a second server: the function's module has another name."""
    with receiving() as receiver:
        started(server, request_for(receiver, rows, task_id="imports"))
        wait_for_end(receiver)
    names = (place / "imported").read_text().split()
    assert names[0] == "__main__"
    assert set(names[1:]) == {"service"}


def test_steps_are_told_every_so_many_and_at_the_end(server, rows):
    """Every third step of eight: 3, 6 and 8; the number of epochs is not compared with steps. Both spellings will do."""
    with receiving() as receiver:
        request = request_for(receiver, rows, task_id="steps", measurement="step", total_epoch_number=1)
        request["param_dict"] |= {"show_frequency": 3, "config_param": {"steps": 8}}
        del request["param_dict"]["show_frequecy"]
        answer = started(server, request)
        events = wait_for_end(receiver)
    assert [(event["idx"], event["is_final"]) for event in events] == [(3, False), (6, False), (8, True)]
    assert events[-1]["fig_param"]["x_label"] == "step"
    assert (Path(answer["output_model_path"]) / "best_model_step.pth").exists()


@pytest.mark.parametrize(
    ("config", "told", "error"),
    [
        ({"raise_at": 4}, [2], r"service\.py:\d+: RuntimeError: the loss is not a number"),
        ({"raise_at": 1}, [], "RuntimeError"),
        ({"instead": {"idx": 1}}, [], "fig_param"),
        ({"instead": {"idx": 1, "fig_param": {"x_axis": [1], "x_label": "step", "losses": []}}}, [], "losses"),
        ({"instead": "done"}, [], "must be a dict"),
        ({"steps": 0}, [], "without a result"),
    ],
    ids=["raises later", "raises at once", "no figure", "wrong curves", "no dict", "no result"],
)
def test_a_failure_is_told_once_after_what_came_before(server, rows, config, told, error):
    """A body with task_id, status and error, and nothing after it."""
    with receiving() as receiver:
        run_id = started(server, request_for(receiver, rows, task_id=new_id("fails"), config_param=config))["run_id"]
        events = wait_for_end(receiver)
    assert [event["idx"] for event in events[:-1]] == told
    assert set(events[-1]) == {"task_id", "status", "error"}
    assert events[-1]["task_id"].startswith("fails_")
    assert events[-1]["status"] == "fail"
    assert re.search(error, events[-1]["error"])
    with server.client() as client:
        assert wait_for_run(client, run_id)["status"] == "failed"


def test_a_cancelled_run_is_told_as_a_failure(server, rows):
    """Whoever waits for the last callback does not wait for ever."""
    with receiving() as receiver, server.client() as client:
        request = request_for(receiver, rows, task_id="cancelled", config_param={"wait_for": "never"})
        run_id = started(server, request)["run_id"]
        wait_for_run(client, run_id, lambda run: run["current_step"] == 1)
        assert client.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "cancelled"
        assert wait_for_end(receiver) == [{"task_id": "cancelled", "status": "fail", "error": "the run was cancelled"}]


def test_a_dataset_behind_an_address_is_fetched_first(server, place):
    """The function gets a local path with the same ending."""
    with receiving() as receiver, file_server() as files:
        answer = started(server, request_for(receiver, f"{files}/rows.csv?token=x", task_id="address"))
        # the server answers 404 for the query: it is told, with the address but without what may be a secret
        (failed,) = wait_for_end(receiver)
        assert "404" in failed["error"]
        assert "token" not in failed["error"]
        answer = started(server, request_for(receiver, f"{files}/rows.csv", task_id="address2"))
        for events in polled(lambda: receiver.events):
            if events[-1].get("is_final"):
                break
    with server.client() as client:
        wait_for_run(client, answer["run_id"])
    assert events[-1]["task_id"] == "address2"
    assert "reading rows from afar" in Path(answer["output_log_path"]).read_text()
    assert (place / "data/state/runs" / answer["run_id"] / "datasets/1_rows.csv").read_text() == "rows from afar\n"


@pytest.mark.parametrize(
    ("path", "error"), [("/metadata", "169.254.169.254 must not be reached"), ("/huge", "more than 2147483648 bytes")]
)
def test_a_dataset_that_must_not_be_fetched_fails_the_task(server, path, error):
    """A redirect to where clouds keep credentials; ten gigabytes, of which not one is read."""
    with receiving() as receiver, file_server() as files:
        started(server, request_for(receiver, files + path, task_id=new_id("bad")))
        (event,) = wait_for_end(receiver)
    assert event["status"] == "fail"
    assert error in event["error"]


def test_an_unreachable_dataset_fails_the_task(server):
    """Nobody listens there; the error says which address."""
    with file_server() as files:
        gone = f"{files}/rows.csv"
    with receiving() as receiver:
        started(server, request_for(receiver, gone, task_id="gone"))
        (event,) = wait_for_end(receiver)
    assert event["status"] == "fail"
    assert gone in event["error"]


def test_a_receiver_that_was_down_gets_everything_once_it_is_up(tmp_path):
    """Each once and in order, though the server is killed in the middle and the function goes on without it."""
    with function_server(tmp_path) as server, receiving() as receiver, server.client() as client:
        receiver.status = 500
        request = request_for(receiver, tmp_path / "data/rows.csv", show_frequecy=1, config_param={"wait_for": "go"})
        run_id = started(server, request)["run_id"]
        assert any(polled(lambda: receiver.refused))
        receiver.status = 200  # from now on; the next try comes after 5 seconds, and a third would after 5 minutes
        wait_for_run(client, run_id, lambda run: run["current_step"] == 1)
        server.kill9()
        (tmp_path / "go").touch()
        server.up()
        client.base_url = server.url
        wait_for_run(client, run_id)
        events = wait_for_end(receiver)
        assert [event["idx"] for event in events] == [1, 2, 3, 4, 5]
        assert [event["is_final"] for event in events] == [False] * 4 + [True]
        listed = client.get(f"/v1/runs/{run_id}/deliveries", params={"limit": 100}).json()["deliveries"]
        assert len(listed) == 5
        assert started(server, request)["run_id"] == run_id, "a task is known after a kill, too"


@pytest.mark.parametrize("field", FIELDS, ids=".".join)
def test_a_missing_field_is_named(server, rows, field):
    """In every position; nothing is begun."""
    request = request_for("http://127.0.0.1:9/hook", rows)
    inside: Any = request
    for name in field[:-1]:
        inside = inside[name]
    del inside[field[-1]]
    (error,) = refused(server, request, 422)
    assert error == {"message": "is missing", "where": ".".join(field), "mend": "every field is required"}


def test_all_faults_are_named_at_once(server, rows, place):
    """Shape, limits, addresses and files in one answer."""
    request = request_for("ftp://example.org/hook", rows, finetune_mode="half", lr=0, batch_size="8", measurement="day")
    request["task_id"] = "../up"
    request["extra"] = 1
    request["input_content"]["customized_input"] |= {
        "valid_dataset_path": "http://169.254.169.254/rows",
        "test_dataset_path": str(place / "data/row.csv"),
    }
    errors = refused(server, request, 422)
    assert {error["where"] for error in errors} == {
        "extra",
        "task_id",
        "call_back_api",
        "input_content.customized_input.valid_dataset_path",
        "input_content.customized_input.test_dataset_path",
        "param_dict.finetune_mode",
        "param_dict.lr",
        "param_dict.batch_size",
        "param_dict.measurement",
    }
    assert len(refused(server, {}, 422)) == 4


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"total_epoch_number": 1}, "param_dict.total_epoch_number"),
        ({"show_frequecy": 0}, "param_dict.show_frequecy"),
        ({"show_frequency": 3}, "param_dict.show_frequency"),
        ({"config_param": []}, "param_dict.config_param"),
    ],
    ids=["fewer epochs than the frequency", "zero", "two spellings at odds", "a list"],
)
def test_a_bad_parameter_is_named(server, rows, change, where):
    """With the reason, and nothing is begun."""
    (error,) = refused(server, request_for("http://127.0.0.1:9/hook", rows, **change), 422)
    assert error["where"] == where


def test_files_are_looked_for_where_they_may_be(server, place):
    """Missing ones are 400 and forbidden ones 403, each position named."""
    assert len(refused(server, request_for("http://127.0.0.1:9/hook", place / "data/none.csv"), 400)) == 3
    assert len(refused(server, request_for("http://127.0.0.1:9/hook", "/etc/passwd"), 403)) == 3


def test_a_repeat_is_the_same_task(server, rows, place):
    """The same run, however the request is spelled and whether or not its data is still there; nothing is begun twice."""
    data = place / "data/once.csv"
    data.write_text("rows\n")
    with receiving() as receiver:
        request = request_for(receiver, data, task_id="repeated", lr=1.0)
        first = started(server, request)
        data.unlink()
        spelled = copy.deepcopy(dict(reversed(request.items())))
        spelled["param_dict"]["show_frequency"] = spelled["param_dict"].pop("show_frequecy")
        spelled["param_dict"]["lr"] = 1
        again = started(server, spelled)
        assert {**again, "status": ""} == {**first, "status": ""}
        wait_for_end(receiver)
        assert started(server, request)["run_id"] == first["run_id"]
    folders = list((place / "data/finetuned/digits").glob("*_repeated"))
    assert [str(folder / "model_files") for folder in folders] == [first["output_model_path"]]


def test_another_request_under_a_task_is_refused(server, rows):
    """409 that names the run, whatever differs."""
    with receiving() as receiver:
        request = request_for(receiver, rows, task_id="taken")
        run_id = started(server, request)["run_id"]
        wait_for_end(receiver)
    for change in ({"lr": 0.5}, {"config_param": {"seed": 1}}):
        other = copy.deepcopy(request)
        other["param_dict"] |= change
        with server.client() as client:
            before = runs_there(client)
            answer = client.post("/finetune", json=other)
            assert answer.status_code == 409
            assert run_id in answer.json()["detail"]
            assert runs_there(client) == before


def test_of_many_repeats_at_once_one_begins(server, rows):
    """All of them get the one run."""
    with receiving() as receiver:
        request = request_for(receiver, rows, task_id="race")
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: started(server, request), range(8)))
        wait_for_end(receiver)
    assert len({answer["run_id"] for answer in answers}) == 1
    assert len({answer["output_model_path"] for answer in answers}) == 1


def test_a_function_gets_a_folder_as_it_is(server, place):
    """Datasets may be folders, of whatever the function reads."""
    folder = place / "data/pictures"
    (folder / "cats").mkdir(parents=True)
    with receiving() as receiver:
        answer = started(server, request_for(receiver, folder, task_id="folder"))
        assert wait_for_end(receiver)[-1]["is_final"]
    assert f"reading {folder}" in Path(answer["output_log_path"]).read_text()


def test_a_receiver_on_all_addresses_of_this_machine_is_told(server, rows):
    """`http://0.0.0.0:port/` means this machine, as programs print it that listen there."""
    with receiving() as receiver:
        address = receiver.url.replace("127.0.0.1", "0.0.0.0")  # that is what is tried
        assert address != receiver.url
        started(server, request_for(address, rows, task_id="everywhere"))
        assert wait_for_end(receiver)[-1]["task_id"] == "everywhere"


def test_no_other_door_names_the_file_that_is_run(server):
    """The function recipe has no options: a caller with a key cannot make it run or write any file."""
    with server.client() as client:
        experiment = client.post("/v1/experiments", json={"name": "x", "task_type": "function"}).json()["id"]
        body = {"hyperparams": {"training.file": "/tmp/x.py"}, "train_config": {"model": {"log_path": "/tmp/x"}}}
        answer = client.post(f"/v1/experiments/{experiment}/runs", json=body)
        assert answer.status_code == 422, answer.text
        assert len(answer.json()["errors"]) == 2


@pytest.mark.parametrize("how", ["announced", "chunked"])
def test_a_body_of_ten_gigabytes_is_refused_at_once(server, how):
    """413 before the first byte where the length is announced, and else as soon as it is more than a request may take."""
    host, port = server.url.removeprefix("http://").split(":")
    head = b"POST /finetune HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    sent = 0
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        if how == "announced":
            connection.sendall(head + b"Content-Length: 10000000000\r\n\r\n")
        else:
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):  # it need not wait until the last chunk is out
                while sent < 10**10 and not select.select([connection], [], [], 0)[0]:
                    connection.sendall(chunk)
                    sent += len(chunk)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    assert sent < 64 * 1024 * 1024, "four megabytes, and what the kernel holds"


def refused(server, request: dict[str, Any], status: int) -> list[dict[str, Any]]:
    with server.client() as client:
        before = runs_there(client)
        answer = client.post("/finetune", json=copy.deepcopy(request))
        assert answer.status_code == status, answer.text
        assert runs_there(client) == before
        return answer.json()["errors"]


def runs_there(client) -> list[str]:
    return [run["run_id"] for run in client.get("/v1/runs", params={"limit": 1000}).json()["runs"]]
