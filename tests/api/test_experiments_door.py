"""The experiments door: what its callers were promised, over real HTTP against a real server."""

from __future__ import annotations

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from uuid import uuid4

import pytest
import yaml

from support.server import ServerProcess, start_run, wait_for_run

EXPERIMENT = {
    "name": "订单 → JSON",
    "task_type": "sft",
    "goal": "exact match ≥ 95 %",
    "version": "v1",
    "base_model": "org/model",
    "owner": "小王",
    "param_config": {"lr": [1e-4, 3e-4], "note": None},
    "tags": ["demo", "中文"],
}


def create(client, **fields):
    return client.post("/v1/experiments", json={**EXPERIMENT, **fields})


def new_run(client, experiment, **fields):
    return client.post(f"/v1/experiments/{experiment}/runs", json=fields)


def config_of(server, run_id: str) -> dict:
    return yaml.safe_load((server.state_dir / "runs" / run_id / "config.yaml").read_text())


def detail_of(client, experiment: str) -> dict:
    return client.get(f"/v1/experiments/{experiment}/detail").raise_for_status().json()


# -- experiments ----------------------------------------------------------------------------------------------------


def test_an_experiment_is_kept_as_given(client):
    """201, an id, and every field back, in any language."""
    answer = create(client)
    assert answer.status_code == 201
    made = answer.json()
    assert re.fullmatch(r"exp_[0-9a-z]{26}", made["id"])
    assert {name: made[name] for name in EXPERIMENT} == EXPERIMENT
    assert datetime.fromisoformat(made["created_at"]).utcoffset().total_seconds() == 0
    assert client.get(f"/v1/experiments/{made['id']}").json() == made
    assert client.get("/v1/experiments/exp_nothing").status_code == 404
    assert detail_of(client, made["id"]) == {
        **made,
        "runs": [],
        "runs_total": 0,
        "history": [{"at": detail_of(client, made["id"])["history"][0]["at"], "event": "created"}
                    | dict.fromkeys(("run_id", "status", "checkpoint_id", "tag_type", "release_tag"))],
        "history_complete": True,
    }  # fmt: skip


def test_only_name_and_task_type_are_needed(client):
    """Everything else has an empty default."""
    made = client.post("/v1/experiments", json={"name": "x", "task_type": "sft"}).json()
    assert (made["goal"], made["tags"], made["param_config"]) == ("", [], {})


def test_a_repeat_with_the_same_key_is_the_same_experiment(client):
    """Same key and body: 200 and the same id. Another body: 409 that names the first. Without a key: a new one."""
    key = {"Idempotency-Key": str(uuid4())}
    first = client.post("/v1/experiments", json=EXPERIMENT, headers=key)
    again = client.post("/v1/experiments", json=dict(reversed(EXPERIMENT.items())), headers=key)
    other = client.post("/v1/experiments", json={**EXPERIMENT, "name": "another"}, headers=key)
    assert [answer.status_code for answer in (first, again, other)] == [201, 200, 409]
    assert again.json() == first.json()
    assert first.json()["id"] in other.json()["detail"]
    assert other.json()["where"] == "Idempotency-Key"
    assert create(client).json()["id"] != first.json()["id"]


def test_twenty_posts_at_once_with_one_key_make_one_experiment(client, server):
    """Impatient retries overlap: exactly one 201, all with the same id, one line in the journal."""
    key = f"at-once-{uuid4()}"
    with ThreadPoolExecutor(20) as threads:
        answers = list(
            threads.map(
                lambda _: client.post("/v1/experiments", json=EXPERIMENT, headers={"Idempotency-Key": key}), range(20)
            )
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (server.state_dir / "experiments.jsonl").read_text().count(key) == 1


def test_keys_are_as_durable_as_what_they_made(tmp_path):
    """After kill -9 the same key still finds the same experiment, and another body is still refused."""
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes") as server:
        headers = {"Idempotency-Key": "the key"}
        with server.client() as client:
            first = client.post("/v1/experiments", json=EXPERIMENT, headers=headers)
        server.kill9()
        server.up()
        with server.client() as client:
            again = client.post("/v1/experiments", json=EXPERIMENT, headers=headers)
            other = client.post("/v1/experiments", json={**EXPERIMENT, "goal": "x"}, headers=headers)
            assert (again.status_code, again.json()) == (200, first.json())
            assert other.status_code == 409
            assert len(client.get("/v1/experiments").json()["experiments"]) == 1


def test_pages_hold_every_experiment_once_newest_first(client):
    """Following the cursor, also while new ones arrive; filters by tag and owner."""
    tag = str(uuid4())
    ids = [
        create(client, name=str(number), tags=[tag], owner="a" if number % 2 else "b").json()["id"]
        for number in range(7)
    ]
    seen, cursor = [], None
    while True:
        page = client.get(
            "/v1/experiments", params={"tag": tag, "limit": 3, **({"cursor": cursor} if cursor else {})}
        ).json()
        assert len(page["experiments"]) <= 3
        seen += [item["id"] for item in page["experiments"]]
        create(client, tags=[tag])
        cursor = page["cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]
    owned = client.get("/v1/experiments", params={"tag": tag, "owner": "a"}).json()["experiments"]
    assert [item["id"] for item in owned] == [one for number, one in enumerate(ids) if number % 2][::-1]
    assert client.get("/v1/experiments", params={"tag": "no such tag"}).json() == {"experiments": [], "cursor": None}


def test_the_history_is_in_order(client, server, experiment):
    """Created, then each run's changes as they happened, each with its run and state."""
    first = new_run(client, experiment, recipe="quick").json()["run_id"]
    wait_for_run(client, first)
    second = new_run(client, experiment, recipe="fails").json()["run_id"]
    wait_for_run(client, second)
    detail = detail_of(client, experiment)
    assert [(event["event"], event["run_id"], event["status"]) for event in detail["history"]] == [
        ("created", None, None),
        *(
            (f"run.{'created' if state == 'queued' else state}", run, state)
            for run, last in ((first, "succeeded"), (second, "failed"))
            for state in ("queued", "starting", "running", last)
        ),
    ]
    times = [datetime.fromisoformat(event["at"]) for event in detail["history"]]
    assert times == sorted(times)
    assert [run["run_id"] for run in detail["runs"]] == [second, first]
    assert (detail["runs_total"], detail["history_complete"]) == (2, True)


# -- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_is_made_from_the_experiments_task_type(client):
    """Without a recipe in the request, the experiment says which."""
    experiment = create(client).json()["id"]
    made = new_run(client, experiment)
    assert made.status_code == 201
    run = made.json()
    assert (run["recipe"], run["experiment_id"], run["status"]) == ("sft", experiment, "queued")
    assert run["start_command"].startswith("bash ")
    assert run["start_command"].endswith(f"runs/{run['run_id']}/config.yaml")
    assert run["created_at"]


def test_a_run_can_be_everything_at_once(client, server, place, experiment):
    """Model, dataset by folder, hyperparameters in every spelling, seed, priority, notes: all reach the config."""
    made = new_run(
        client,
        experiment,
        recipe="trains",
        model=str(place / "model"),
        dataset={"name": str(place / "data"), "split": "train"},
        hyperparams={"lr": 0.5, "training.max_steps": 7, "lora": {"r": 4}, "targets": ["k"]},
        notes="第一次",
        priority=3,
        seed=7,
    )
    assert made.status_code == 201, made.text
    run = made.json()
    assert run["notes"] == "第一次"
    assert (run["priority"], run["seed"], run["model"]) == (3, 7, str(place / "model"))
    assert run["dataset"]["path"] == str(place / "data/train.jsonl")
    config = config_of(server, run["run_id"])
    assert config["training"] == {"max_steps": 7, "learning_rate": 0.5, "seed": 7}
    assert config["lora"] == {"r": 4, "targets": ["k"]}
    assert config["model"]["base"] == str(place / "model")
    assert config["data"]["train_file"] == str(place / "data/train.jsonl")
    assert config["data"]["validation_file"] == str(place / "data/validation.jsonl")
    done = wait_for_run(client, run["run_id"])
    assert done["status"] == "succeeded"
    log = client.get(f"/v1/runs/{run['run_id']}/logs").json()["lines"]
    assert log[0]["text"] == f"data is {place}/data/train.jsonl"


@pytest.mark.parametrize(
    "hyperparams",
    [{"lr": 0.25}, {"learning_rate": 0.25}, {"training.learning_rate": 0.25}, {"training": {"learning_rate": 0.25}}],
)
def test_a_hyperparameter_may_be_named_in_four_ways(client, server, place, experiment, hyperparams):
    """Alias, bare name, dotted path, nested by section: the same option."""
    run = new_run(
        client,
        experiment,
        recipe="trains",
        model="org/model",
        dataset={"name": str(place / "one.jsonl")},
        hyperparams=hyperparams,
    ).json()
    assert config_of(server, run["run_id"])["training"]["learning_rate"] == 0.25
    assert run["hyperparams"] == hyperparams


def test_a_train_config_chooses_the_recipe_and_the_request_has_the_last_word(client, server, place, experiment):
    """As a path or inline: defaults, then the train config, then the request."""
    common = {"model": "org/model", "dataset": {"name": str(place / "one.jsonl")}}
    by_path = new_run(client, experiment, train_config=str(place / "config.yaml"), **common)
    assert by_path.status_code == 201, by_path.text
    assert by_path.json()["recipe"] == "trains"
    assert by_path.json()["train_config"] == str(place / "config.yaml")
    assert config_of(server, by_path.json()["run_id"])["training"]["max_steps"] == 20
    inline = new_run(
        client,
        experiment,
        train_config={"job": {"type": "trains"}, "training": {"max_steps": 30, "learning_rate": 1}},
        hyperparams={"steps": 40},
        **common,
    ).json()
    training = config_of(server, inline["run_id"])["training"]
    assert (training["max_steps"], training["learning_rate"]) == (40, 1.0)


def test_the_base_model_of_the_experiment_is_the_default(client, server, place):
    """A run that names no model takes the experiment's."""
    experiment = create(client, base_model="org/base").json()["id"]
    run = new_run(client, experiment, recipe="trains", dataset={"name": str(place / "one.jsonl")}).json()
    assert run["model"] == "org/base"
    assert config_of(server, run["run_id"])["model"]["base"] == "org/base"


def test_asking_for_gpus_on_a_machine_without_is_a_warning(client, experiment):
    """The run goes on the CPU, and says so."""
    run = new_run(client, experiment, recipe="sft", resources={"gpu_type": "A100", "count": 2}).json()
    assert run["warnings"] == ["2 x A100 was asked for; this machine has no GPU, so the run uses the CPU"]


def test_every_fault_of_a_run_is_told_at_once(client, place, experiment):
    """Unknown options with the nearest right name, and wrong values, each with where and mend."""
    answer = new_run(
        client,
        experiment,
        recipe="trains",
        model="org/model",
        dataset={"name": str(place / "one.jsonl")},
        hyperparams={"learning_rte": 1, "max_steps": "ten", "lora": {"rank": 2}},
    )
    assert answer.status_code == 422
    faults = {fault["where"]: fault for fault in answer.json()["errors"]}
    assert set(faults) == {"hyperparams.learning_rte", "hyperparams.max_steps", "hyperparams.lora.rank"}
    assert "learning_rate" in faults["hyperparams.learning_rte"]["mend"]
    assert "whole number" in faults["hyperparams.max_steps"]["message"]


def test_everything_missing_is_told_at_once(client, experiment):
    """A missing model and a missing dataset are one answer with both."""
    answer = new_run(client, experiment, recipe="trains", model="nothing", dataset={"name": "nothing.jsonl"})
    assert answer.status_code == 400
    assert [fault["where"] for fault in answer.json()["errors"]] == ["model", "dataset.name"]


@pytest.mark.parametrize(
    ("request_", "status", "where"),
    [
        ({"recipe": "sftt"}, 400, "recipe"),
        ({"recipe": "broken"}, 422, "recipes/broken"),
        ({"recipe": "../sft"}, 400, "recipe"),
        ({"recipe": "trains", "model": "org/model"}, 400, "dataset"),
        ({"recipe": "sft", "seed": -1}, 422, "seed"),
        ({"recipe": "sft", "resources": {"count": -1}}, 422, "resources.count"),
        ({"recipe": "sft", "train_config": "nothing.yaml"}, 400, "train_config"),
        ({"recipe": "sft", "train_config": "/etc/passwd"}, 403, "train_config"),
        ({"recipe": "trains", "model": "org/m", "dataset": {"name": "/etc/passwd"}}, 403, "dataset.name"),
        ({"recipe": "trains", "model": "/etc", "dataset": {"name": "x"}}, 403, "model"),
        ({"train_config": {"job": {"type": "rl"}}}, 422, "train_config.job.method"),
        ({"train_config": {"job": {"type": "sftt"}}}, 400, "recipe"),
    ],
)
def test_a_run_that_cannot_be_is_refused(client, experiment, request_, status, where):
    """A clear answer with where; and nothing was created."""
    answer = new_run(client, experiment, **request_)
    assert answer.status_code == status, answer.text
    assert answer.json()["where"].endswith(where)
    assert detail_of(client, experiment)["runs_total"] == 0


@pytest.mark.parametrize(
    "request_",
    [
        {"resources": {"gpus": 1}},
        {"dataset": {"name": "x", "spilt": "y"}},
        {"hyperparam": {}},
        {"priority": 10**400},
        {"priority": 2**63},
        {"seed": 1.5},
        {"notes": "x" * 30_000},
    ],
)
def test_unknown_and_impossible_fields_of_a_run_are_refused(client, experiment, request_):
    """A misspelt field is not silently left out of account."""
    answer = new_run(client, experiment, recipe="sft", **request_)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]


def test_a_run_that_was_refused_leaves_nothing_behind(client, server, experiment):
    """No run folder without a run."""
    before = set((server.state_dir / "runs").iterdir())
    assert new_run(client, experiment, recipe="sft", hyperparams={"nope": 1}).status_code == 422
    assert new_run(client, experiment, recipe="sft", hyperparams={"max_steps": "x" * 100_000}).status_code == 413
    assert set((server.state_dir / "runs").iterdir()) == before


# -- status and cancel ----------------------------------------------------------------------------------------------


def test_the_status_of_a_run_that_is_over(client, experiment):
    """Every field of the contract, with the latest metrics."""
    run_id = new_run(client, experiment, recipe="quick").json()["run_id"]
    wait_for_run(client, run_id)
    status = client.get(f"/v1/experiments/{experiment}/runs/{run_id}/status").json()
    assert status == {
        "run_id": run_id,
        "status": "succeeded",
        "progress": 1.0,
        "phase": None,
        "part": None,
        "current_step": 5,
        "total_steps": 5,
        "epoch": 1.0,
        "eta_seconds": 0.0,
        "metrics": {"loss": 0.2},
        "started_at": status["started_at"],
        "finished_at": status["finished_at"],
        "error": None,
        "ckpt_path": "/somewhere/checkpoint-5",
        "warnings": [],
    }
    assert datetime.fromisoformat(status["started_at"]) <= datetime.fromisoformat(status["finished_at"])
    assert client.get(f"/v1/runs/{run_id}/status").json() == status


def test_the_status_of_a_failed_run_says_why(client, experiment):
    """What it last said, where its log is, and what to do."""
    run_id = new_run(client, experiment, recipe="fails").json()["run_id"]
    wait_for_run(client, run_id)
    status = client.get(f"/v1/experiments/{experiment}/runs/{run_id}/status").json()
    assert status["status"] == "failed"
    assert "exited with 7" in status["error"]["message"]
    assert "out of cheese" in status["error"]["message"]
    assert status["error"]["where"].endswith("run.log")
    assert run_id in status["error"]["mend"]


def test_cancelling_a_run_in_the_queue_and_under_way(client, server, experiment):
    """200 with the run's end; asking again gives the same answer."""
    run_id = new_run(client, experiment, recipe="sleeps").json()["run_id"]
    wait_for_run(client, run_id, lambda run: run["status"] == "running")
    path = f"/v1/experiments/{experiment}/runs/{run_id}/cancel"
    answer = client.post(path)
    assert (answer.status_code, answer.json()) == (200, {"run_id": run_id, "status": "cancelled", "ckpt_path": None})
    assert client.post(path).json() == answer.json()
    assert client.post(f"/v1/runs/{run_id}/cancel").json() == answer.json()
    assert client.get(f"/v1/runs/{run_id}").json()["exit"]["signal"] == signal.SIGTERM


def test_a_queued_run_is_cancelled_without_being_started(tmp_path, recipes):
    """One slot, taken: the waiting run ends at once and never has a process."""
    with ServerProcess.start(tmp_path / "state", recipes) as server, server.client() as client:
        first = start_run(client, "sleeps")
        waiting = start_run(client, "sleeps")
        wait_for_run(client, first, lambda run: run["status"] == "running")
        answer = client.post(f"/v1/runs/{waiting}/cancel").json()
        assert answer == {"run_id": waiting, "status": "cancelled", "ckpt_path": None}
        assert client.post(f"/v1/runs/{waiting}/cancel").json() == answer
        client.post(f"/v1/runs/{first}/cancel").raise_for_status()
        assert not (server.state_dir / "runs" / waiting / "attempts").exists()


def test_a_run_that_succeeded_cannot_be_cancelled(client, experiment):
    """409 that says how it ended."""
    run_id = new_run(client, experiment, recipe="quick").json()["run_id"]
    wait_for_run(client, run_id)
    answer = client.post(f"/v1/experiments/{experiment}/runs/{run_id}/cancel")
    assert answer.status_code == 409
    assert "succeeded" in answer.json()["detail"]


@pytest.mark.parametrize("call", ["status", "cancel"])
def test_a_run_belongs_to_its_experiment(client, experiment, call):
    """Under another experiment it is not found, and neither is an unknown one of either."""
    run_id = new_run(client, experiment, recipe="sft").json()["run_id"]
    wait_for_run(client, run_id)
    other = create(client).json()["id"]
    method = "POST" if call == "cancel" else "GET"
    for experiment_id, run in ((other, run_id), ("exp_nothing", run_id), (experiment, "run_nothing")):
        answer = client.request(method, f"/v1/experiments/{experiment_id}/runs/{run}/{call}")
        assert answer.status_code == 404, answer.text
        assert answer.json()["mend" if "nothing" in experiment_id + run else "detail"]


def test_runs_of_an_experiment_are_paged(client, experiment):
    """Newest first, each once, and none of another experiment."""
    ids = [new_run(client, experiment, recipe="sft").json()["run_id"] for _ in range(5)]
    new_run(client, create(client).json()["id"], recipe="sft")
    seen, cursor = [], None
    while True:
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = client.get(f"/v1/experiments/{experiment}/runs", params=params).json()
        seen += [run["run_id"] for run in page["runs"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]
    assert client.get("/v1/experiments/exp_nothing/runs").status_code == 404


def test_what_was_answered_is_on_disk(client, server):
    """The record can be found with grep, and it is the last line of its id."""
    made = create(client).json()
    line = [one for one in (server.state_dir / "experiments.jsonl").read_text().splitlines() if made["id"] in one][-1]
    assert json.loads(line)["data"]["name"] == EXPERIMENT["name"]
