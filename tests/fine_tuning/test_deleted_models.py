"""Deleting a model that was trained never takes what somebody uses, and a deletion that was cut short is finished."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from fine_tuning.conftest import ENVIRONMENT
from fine_tuning.job_parts import created, once, refusal, rows, uploaded
from support.deployed import remove_all
from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe
from support.tiny_model import save_tiny_model, tiny_tokenizer
from tunesmith.errors import MissingReference
from tunesmith.references import LeavingModels

ONE_EPOCH = {"training.num_train_epochs": 1}
MAKES = """
mkdir -p "$TUNESMITH_OUTPUT_DIR"
cp -r "{model}"/. "$TUNESMITH_OUTPUT_DIR"
echo '{{"tunesmith":"result","model":"'$TUNESMITH_OUTPUT_DIR'","metrics":{{}}}}'
"""
ADAPTS = """
mkdir -p "$TUNESMITH_OUTPUT_DIR"
base=$(sed -n 's/^ *base: //p' "$1")
echo '{"base_model_name_or_path": "'$base'", "r": 4}' > "$TUNESMITH_OUTPUT_DIR/adapter_config.json"
echo weights > "$TUNESMITH_OUTPUT_DIR/adapter_model.safetensors"
echo '{"tunesmith":"result","model":"'$TUNESMITH_OUTPUT_DIR'","metrics":{}}'
"""
WAITS = 'echo ready; while [ ! -e "$TUNESMITH_RUN_DIR/go" ]; do sleep 0.02; done'
RACES = 16


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory):
    """A server whose recipes make models without training."""
    folder = tmp_path_factory.mktemp("deleted")
    model = folder / "state" / "models" / "tiny"
    save_tiny_model(model, tiny_tokenizer())
    write_recipe(folder / "recipes", "makes", MAKES.format(model=model))
    needs_model = {"model.base": {"type": "str", "optional": False}}
    for name, script in (("adapts", ADAPTS), ("waits", WAITS)):
        write_recipe(folder / "recipes", name, script, {"model": {"base": None}}, schema=needs_model)
    with ServerProcess.start(
        folder / "state", folder / "recipes", {**ENVIRONMENT, "TUNESMITH_MAX_CPU_RUNS": "8"}
    ) as server:
        yield server
        with server.client() as client:
            remove_all(client)


@pytest.fixture
def quick_client(quick):
    with quick.client() as client:
        yield client


def ask(client, model):
    asked = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    return client.post("/v1/chat/completions", json=asked)


def made(client, recipe: str = "makes", **request) -> str:
    """The id of a run that has made a model."""
    run_id = start_run(client, recipe, **request)
    assert wait_for_run(client, run_id)["status"] == "succeeded"
    return run_id


def name_of(run_id: str) -> str:
    return f"ft:makes:tunesmith::{run_id.removeprefix('run_')}"


def batch_of(client, models, requests: int, tokens: int = 200) -> str:
    lines = [
        {
            "custom_id": str(number),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": models[number % len(models)],
                "messages": [{"role": "user", "content": "hi"}],
                "max_tokens": tokens,
            },
        }
        for number in range(requests)
    ]
    file = uploaded(client, "".join(json.dumps(line) + "\n" for line in lines).encode(), purpose="batch")
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return client.post("/v1/batches", json=asked).raise_for_status().json()["id"]


def cancel(client, batch: str) -> None:
    client.post(f"/v1/batches/{batch}/cancel").raise_for_status()
    for found in polled(lambda: client.get(f"/v1/batches/{batch}").json(), 60):
        if found["status"] == "cancelled":
            return
    raise AssertionError(f"{batch} is not cancelled")


def delete(client, model: str) -> httpx.Response:
    return client.delete(f"/v1/models/{model}")


@pytest.fixture(scope="module")
def base(jobs_server):
    """A fine-tuned model that others can be trained on."""
    with jobs_server.client() as client:
        job = created(client, training_file=uploaded(client, rows(6)), recipe="sft", hyperparams=ONE_EPOCH)
        return once(client, job["id"], "succeeded")["fine_tuned_model"]


def test_a_model_is_not_deleted_under_the_adapter_that_needs_it(client, base):
    """The refusal names the adapter."""
    job = created(client, training_file=uploaded(client, rows(6)), model=base, hyperparams=ONE_EPOCH)
    adapter = once(client, job["id"], "succeeded")["fine_tuned_model"]
    assert ask(client, adapter).status_code == 200
    assert adapter in refusal(delete(client, base))["message"]
    assert ask(client, adapter).status_code == 200
    remove_all(client)


def test_a_model_is_not_deleted_under_a_batch_that_asks_it(client, base):
    """The refusal names the batch."""
    batch = batch_of(client, [base], 300)
    for found in polled(lambda: client.get(f"/v1/batches/{batch}").json(), 60):
        if found["request_counts"]["completed"]:
            break
    assert batch in refusal(delete(client, base))["message"]
    assert client.get(f"/v1/batches/{batch}").json()["request_counts"]["failed"] == 0
    cancel(client, batch)
    remove_all(client)


def test_a_batch_keeps_its_models_from_when_it_is_made_and_by_whichever_name(quick_client):
    """Also one of several, and before the file was read; until the batch is over."""
    one, other, unasked = (made(quick_client) for _ in range(3))
    batch = batch_of(quick_client, [one, name_of(other), "tiny"], 300)
    assert batch in refusal(delete(quick_client, name_of(one)))["message"]
    assert batch in refusal(delete(quick_client, other))["message"]
    assert delete(quick_client, unasked).status_code == 200
    for found in polled(lambda: quick_client.get(f"/v1/batches/{batch}").json(), 60):
        if found["status"] == "in_progress":
            break
    assert batch in refusal(delete(quick_client, name_of(one)))["message"]
    cancel(quick_client, batch)
    remove_all(quick_client)
    assert [delete(quick_client, model).status_code for model in (one, other)] == [200, 200]


def test_a_base_can_be_deleted_after_its_adapters(quick_client):
    base = made(quick_client)
    adapter = made(quick_client, "adapts", model=name_of(base))
    assert quick_client.get("/v1/models/resolve", params={"ref": adapter}).json()["adapter"] is True
    assert adapter.removeprefix("run_") in refusal(delete(quick_client, base))["message"]
    assert delete(quick_client, adapter).status_code == 200
    assert delete(quick_client, base).status_code == 200


def test_an_adapter_whose_base_is_gone_can_be_deleted(quick, quick_client):
    """It cannot be asked any more, and is listed."""
    base = made(quick_client)
    adapter = made(quick_client, "adapts", model=base)
    output = quick.state_dir / "runs" / base / "output"
    output.rename(output.with_name("elsewhere"))
    assert quick_client.get(f"/v1/models/{adapter}").status_code == 404
    assert delete(quick_client, adapter).status_code == 200
    assert not (quick.state_dir / "runs" / adapter / "output").exists()
    assert delete(quick_client, adapter).status_code == 404


def test_either_a_run_begins_to_use_a_model_or_the_model_is_deleted(quick, quick_client):
    """Both asked for at once, one of them is refused."""
    experiment = quick_client.post("/v1/experiments", json={"name": "races", "task_type": "sft"}).json()["id"]
    models = [made(quick_client) for _ in range(RACES)]

    with quick.client() as other, ThreadPoolExecutor(max_workers=1) as threads:

        def use(model: str) -> httpx.Response:
            return other.post(f"/v1/experiments/{experiment}/runs", json={"recipe": "waits", "model": name_of(model)})

        other.get("/healthz")
        for number, model in enumerate(models):
            using = threads.submit(use, model)
            for _ in range(number % 8):  # so that the deletion comes at another moment of the creation each time
                quick_client.get("/healthz")
            deleted, run = delete(quick_client, name_of(model)).status_code, using.result()
            assert (run.status_code, deleted) in ((201, 400), (400, 200)), run.text
            if run.status_code == 201:
                quick_client.post(f"/v1/runs/{run.json()['run_id']}/cancel").raise_for_status()


def test_of_two_who_delete_a_model_one_is_told_that_it_is_gone(quick, quick_client):
    def again(model: str) -> int:
        with quick.client() as client:
            return delete(client, model).status_code

    with ThreadPoolExecutor(max_workers=1) as threads:
        for model in [made(quick_client) for _ in range(5)]:
            other = threads.submit(again, model)
            assert sorted((delete(quick_client, model).status_code, other.result())) == [200, 404]


def test_what_a_crash_leaves_of_a_deleted_model_is_removed_at_the_next_start(quick, tmp_path):
    """The model is gone from the moment at which its folder began to be removed; nothing of it stays on the disk."""
    recipes = quick.state_dir.parent / "recipes"
    fragile = ServerProcess(tmp_path / "state", recipes, {**ENVIRONMENT, "TUNESMITH_FAILPOINT": "trash.before_removal"})
    fragile.up()
    with fragile.client() as client:
        model = made(client)
        with pytest.raises(httpx.HTTPError):
            delete(client, model)
    fragile.wait()
    trash = tmp_path / "state" / "trash"
    assert list(trash.glob("*/config.json"))
    with ServerProcess.start(tmp_path / "state", recipes, ENVIRONMENT) as server, server.client() as client:
        assert delete(client, model).status_code == 404
        for left in polled(lambda: list(trash.iterdir())):
            if not left:
                break
        assert not list(trash.iterdir())
        assert sorted(one.name for one in (tmp_path / "state" / "runs" / model).iterdir() if "output" in one.name) == []


def test_a_model_that_is_leaving_is_gone_for_whoever_asks():
    """By its folder, by the folder that a link to it leads to, and by what lies in either; other models stay."""
    leaving, folder, real = LeavingModels(), Path("/runs/a/output"), Path("/disk/a/output")
    leaving.refuse([str(folder)], "model")
    with leaving.leaving(folder, real):
        for path in (folder, real, folder / "part"):
            with pytest.raises(MissingReference, match="was just deleted"):
                leaving.refuse([str(path)], "model")
        with pytest.raises(MissingReference), leaving.leaving(folder, real):
            pass
        leaving.refuse(["/runs/a/output-2", "owner/model"], "model")
    leaving.refuse([str(folder), str(real)], "model")
