"""Runs that name uploaded datasets: which file they get, which train config, and what must stay while they run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from dataset_parts import ROW, new_dataset, put_file

from support.server import ServerProcess, wait_for_run


@pytest.fixture(scope="module")
def experiment(client: httpx.Client) -> str:
    experiment_id: str = client.post("/v1/experiments", json={"name": "x", "task_type": "sft"}).json()["id"]
    return experiment_id


@pytest.fixture
def run(client: httpx.Client, server: ServerProcess, experiment: str):
    """Makes runs of ``trains``, which go on until the test is over."""
    made: list[str] = []

    def create(dataset: str | None, split: str = "train", **more: Any) -> httpx.Response:
        named = {"dataset": {"name": dataset, "split": split}} if dataset is not None else {}
        body = {"recipe": "trains", "model": str(server.state_dir.with_name("model")), **named, **more}
        answer = client.post(f"/v1/experiments/{experiment}/runs", json=body)
        if answer.status_code == 201:
            made.append(answer.json()["run_id"])
        return answer

    yield create
    for run_id in made:
        client.post(f"/v1/runs/{run_id}/cancel")


def resolved(server: ServerProcess, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    folder = server.state_dir / "runs" / answer.json()["run_id"]
    config: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return config


def test_a_dataset_is_named_by_its_id_or_its_name(client, server, run) -> None:
    """The one file that it has is used, whatever that is called."""
    dataset = new_dataset(client, "named by both")
    upload = put_file(client, dataset, "anything.jsonl")["upload_id"]
    path = str(server.state_dir / "uploads" / upload / "data.jsonl")
    for reference in (dataset, "named by both"):
        answer = run(reference)
        assert answer.json()["dataset"]["path"] == path
        assert resolved(server, answer)["data"]["train_file"] == path


def test_the_split_chooses_among_several_files(client, server, run) -> None:
    """By the file's name without its suffix; the validation file comes along."""
    dataset = new_dataset(client)
    paths = {}
    for name in ("train.jsonl", "validation.jsonl", "more/held-out.json"):
        upload = put_file(client, dataset, name)
        stored = "data.json" if name.endswith(".json") else "data.jsonl"
        paths[name] = str(server.state_dir / "uploads" / upload["upload_id"] / stored)
    data = resolved(server, run(dataset))["data"]
    assert (data["train_file"], data["validation_file"]) == (paths["train.jsonl"], paths["validation.jsonl"])
    answer = run(dataset, "held-out")
    assert answer.json()["dataset"]["path"] == paths["more/held-out.json"]
    assert answer.json()["dataset"]["validation_path"] == paths["validation.jsonl"]


def test_what_a_split_cannot_choose_is_listed(client, run) -> None:
    """None of that name, or two of them: the answer names the files there are."""
    dataset = new_dataset(client)
    answer = run(dataset)
    assert answer.status_code == 400
    assert "no files yet" in answer.json()["detail"]
    put_file(client, dataset, "a.jsonl")
    put_file(client, dataset, "b.jsonl")
    answer = run(dataset)
    assert answer.status_code == 400
    assert "a.jsonl, b.jsonl" in answer.json()["detail"]
    assert answer.json()["where"] == "dataset.split"
    put_file(client, dataset, "a.json")
    assert "2 files for the split 'a'" in run(dataset, "a").json()["detail"]
    assert run(dataset, "b").status_code == 201


def test_of_files_with_one_name_the_newest_counts(client, server, run) -> None:
    """The answer to the upload says what it replaces; both stay on record, and the older one counts once it is alone."""
    dataset = new_dataset(client)
    first = put_file(client, dataset, "rows.jsonl")
    assert first["replaces"] == []
    second = put_file(client, dataset, "rows.jsonl", ROW * 2)
    assert second["replaces"] == [first["upload_id"]]
    third = put_file(client, dataset, "rows.jsonl", ROW * 3)
    assert third["replaces"] == [first["upload_id"], second["upload_id"]]
    shown = client.get(f"/api/v1/datasets/{dataset}").json()
    assert [one["replaced_by"] for one in shown["files"]] == [third["upload_id"], third["upload_id"], None]
    assert shown["metadata"]["total_files"] == 3
    assert third["upload_id"] in run(dataset).json()["dataset"]["path"]
    client.delete(f"/api/v1/uploads/{second['upload_id']}").raise_for_status()
    fourth = put_file(client, dataset, "train.jsonl", ROW)
    assert third["upload_id"] in run(dataset, "rows").json()["dataset"]["path"]
    client.delete(f"/api/v1/uploads/{fourth['upload_id']}").raise_for_status()
    other = new_dataset(client)
    old, new = (put_file(client, other, "train.jsonl")["upload_id"] for _ in range(2))
    client.delete(f"/api/v1/uploads/{new}").raise_for_status()
    assert old in run(other).json()["dataset"]["path"]


@pytest.mark.parametrize("reference", ["no such dataset", "upl_nothing", "ds_nothing", "a\0b", "x" * 5000])
def test_what_is_no_dataset_is_a_path_that_is_not_there(run, reference) -> None:
    """400, as for any file that a request names and that does not exist."""
    assert run(reference).status_code == 400


@pytest.mark.parametrize(
    ("name", "content", "where", "said"),
    [
        ("picture.jsonl", b"\x89PNG\r\n\x1a\n", "picture.jsonl", "a PNG file"),
        ("orders.csv", b"prompt,completion\na,b\n", "orders.csv", "a CSV file"),
        ("one.json", b'{\n  "messages": []\n}\n', "one.json:1", "one JSON object over several lines"),
        (
            "订单.jsonl",
            ROW + b'{"prompt": "a", "completion": "b"}\n',
            "订单.jsonl:2",
            "has the shape prompt_completion",
        ),
    ],
)
def test_data_that_cannot_be_trained_is_refused_at_once(client, run, name, content, where, said) -> None:
    """With the file as its owner calls it, the line, and how to go on; no run is made that would fail."""
    dataset = new_dataset(client)
    put_file(client, dataset, name, content)
    before = client.get("/v1/runs").json()
    answer = run(dataset)
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert fault["where"] == where
    assert said in fault["message"]
    assert fault["mend"]
    assert client.get("/v1/runs").json() == before


def test_validation_and_test_files_are_looked_at_too(client, server, run) -> None:
    """What would end the run before it trains is refused, wherever it stands; each file is named."""
    dataset = new_dataset(client)
    for name, content in {"train.jsonl": ROW, "validation.jsonl": b"no rows\n"}.items():
        put_file(client, dataset, name, content)
    answer = run(dataset)
    assert [fault["where"] for fault in answer.json()["errors"]] == ["validation.jsonl:1"]
    path = server.state_dir.with_name("rows.jsonl")
    path.write_bytes(b"PAR1")
    answer = run(str(path))
    assert [fault["where"] for fault in answer.json()["errors"]] == [str(path)]


def test_what_a_run_uses_cannot_be_deleted(client, run) -> None:
    """Neither the dataset nor the files it reads, until it is over; the refusal names it. Other files can."""
    dataset = new_dataset(client)
    uploads = {name: put_file(client, dataset, name)["upload_id"] for name in ("train.jsonl", "val.jsonl", "old.jsonl")}
    run_id = run(dataset).json()["run_id"]
    for path in (
        f"/api/v1/datasets/{dataset}",
        f"/api/v1/uploads/{uploads['train.jsonl']}",
        f"/api/v1/uploads/{uploads['val.jsonl']}",
    ):
        answer = client.delete(path)
        assert answer.status_code == 409, path
        assert run_id in answer.json()["detail"]
    assert client.delete(f"/api/v1/uploads/{uploads['old.jsonl']}").status_code == 200
    shown = client.get(f"/api/v1/datasets/{dataset}").json()
    assert {one["name"] for one in shown["files"]} == {"train.jsonl", "val.jsonl"}
    client.post(f"/v1/runs/{run_id}/cancel").raise_for_status()
    assert client.delete(f"/api/v1/datasets/{dataset}").status_code == 200


def test_a_file_that_is_named_by_its_path_is_in_use_too(client, server, run) -> None:
    """Also where it stands in the run's own overrides."""
    dataset = new_dataset(client)
    upload = put_file(client, dataset, "a.jsonl")["upload_id"]
    path = str(server.state_dir / "uploads" / upload / "data.jsonl")
    first = run(path).json()["run_id"]
    assert client.delete(f"/api/v1/uploads/{upload}").status_code == 409
    client.post(f"/v1/runs/{first}/cancel").raise_for_status()
    other = new_dataset(client)
    put_file(client, other, "b.jsonl")
    second = run(other, hyperparams={"data.validation_file": path}).json()["run_id"]
    assert client.delete(f"/api/v1/uploads/{upload}").status_code == 409
    client.post(f"/v1/runs/{second}/cancel").raise_for_status()
    assert client.delete(f"/api/v1/uploads/{upload}").status_code == 200


def test_a_run_without_a_config_gets_the_dataset_s_and_else_the_service_s(client, server, run) -> None:
    """Only one that is for its recipe; the record says which, and a warning says that it was not asked for."""
    dataset = new_dataset(client)
    put_file(client, dataset, "a.jsonl")

    def config(address: str, recipe: str, seed: int) -> None:
        content = f"job: {{type: {recipe}}}\ntraining: {{seed: {seed}, max_steps: 7}}\n".encode()
        client.put(address, files={"file": ("c.yaml", content)}).raise_for_status()

    of_dataset = f"/api/v1/datasets/{dataset}/train-config"
    assert run(dataset).json()["train_config"] is None
    config("/v1/train-config", "trains", 1)
    try:
        answer = run(dataset)
        assert resolved(server, answer)["training"]["seed"] == 1
        assert any("train config of the service" in line for line in answer.json()["warnings"])
        config(of_dataset, "aligns", 2)
        assert resolved(server, run(dataset))["training"]["seed"] == 1
        config(of_dataset, "trains", 3)
        answer = run(dataset, hyperparams={"max_steps": 9})
        training = resolved(server, answer)["training"]
        assert (training["seed"], training["max_steps"]) == (3, 9)
        assert any(f"train config of dataset {dataset}" in line for line in answer.json()["warnings"])
        shown = Path(answer.json()["train_config"])
        assert shown.parent == server.state_dir / "train_configs"
        assert b"seed: 3" in shown.read_bytes()
        for train_config in ({}, {"training": {"max_steps": 8}}):
            answer = run(dataset, train_config=train_config)
            assert resolved(server, answer)["training"]["seed"] == 42
            assert answer.json()["warnings"] == []
    finally:
        client.delete("/v1/train-config")


def test_a_run_on_a_dataset_reads_its_rows(client, server, experiment) -> None:
    """The program that is started gets the path in its environment and its config."""
    dataset = new_dataset(client)
    put_file(client, dataset, "rows.jsonl", ROW * 3)
    body = {"recipe": "trains", "model": str(server.state_dir.with_name("model")), "dataset": {"name": dataset}}
    run_id = client.post(f"/v1/experiments/{experiment}/runs", json=body).json()["run_id"]
    running = wait_for_run(client, run_id, lambda one: one["status"] == "running")
    assert Path(running["dataset"]["path"]).read_bytes() == ROW * 3
    (server.state_dir / "runs" / run_id / "go").touch()
    assert wait_for_run(client, run_id)["status"] == "succeeded"


def test_a_run_and_a_deletion_at_the_same_time_never_both_succeed(client, server, run) -> None:
    """Either the run has its file, and the deletion was refused; or the file is gone, and the run was refused."""
    outcomes = set()
    with ThreadPoolExecutor(2) as threads:
        for number in range(24):
            dataset = new_dataset(client)
            upload = put_file(client, dataset, "a.jsonl")["upload_id"]
            path = f"/api/v1/datasets/{dataset}" if number % 2 else f"/api/v1/uploads/{upload}"
            created = threads.submit(run, dataset, priority=-1)
            deleted = threads.submit(client.delete, path)
            outcome = (created.result().status_code, deleted.result().status_code)
            if created.result().status_code == 201:
                assert Path(created.result().json()["dataset"]["path"]).is_file()
                client.post(f"/v1/runs/{created.result().json()['run_id']}/cancel")
            outcomes.add(outcome)
    assert outcomes <= {(201, 409), (400, 200)}


def test_a_failed_run_speaks_of_a_file_as_its_owner_does(client, server, experiment) -> None:
    """Whatever a program says of where the file is kept, its error has the name under which the file was uploaded."""
    dataset = new_dataset(client)
    put_file(client, dataset, "客服 v2.jsonl", ROW)
    body = {"recipe": "complains", "model": str(server.state_dir.with_name("model")), "dataset": {"name": dataset}}
    run_id = client.post(f"/v1/experiments/{experiment}/runs", json=body).json()["run_id"]
    error = wait_for_run(client, run_id)["error"]
    assert (error["message"], error["where"]) == ("客服 v2.jsonl is odd", "客服 v2.jsonl:7")


def test_a_refusal_speaks_of_a_file_as_its_owner_does(client, server) -> None:
    """Processing an upload that holds nothing usable."""
    dataset = new_dataset(client)
    put_file(client, dataset, "notes.jsonl", b'{"text": 1}\n')
    out = str(server.state_dir.with_name("out"))
    answer = client.post("/api/data/process", json={"input_file": dataset, "output_dir": out})
    assert answer.status_code == 422
    assert answer.json()["where"] == "notes.jsonl"
    assert "uploads/" not in answer.text
