"""Fine-tuning jobs in OpenAI's words: validated, trained, followed, stopped and resumed; the same runs that other doors have."""

from __future__ import annotations

import csv
import io
import time

import pytest

from fine_tuning.job_parts import JOBS, MODEL, created, file_once_checked, once, refusal, rows, shown, uploaded


@pytest.fixture(scope="module")
def finished(jobs_server):
    """A job that has succeeded, with validation rows and everything a request may say."""
    with jobs_server.client() as client:
        training, validation = uploaded(client, rows(40)), uploaded(client, rows(6), name="valid.jsonl")
        job = created(
            client,
            training_file=training,
            validation_file=validation,
            suffix="Custom Model: Name",
            seed=105,
            metadata={"team": "support", "run": "1"},
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            store=True,  # whatever else a client may send
        )
        assert job["status"] == "validating_files"
        assert job["method"]["supervised"]["hyperparameters"]["batch_size"] == "auto"
        return {**once(client, job["id"], "succeeded"), "files": (training, validation)}


def test_a_finished_job_says_all_that_clients_rely_on(finished):
    training, validation = finished["files"]
    assert finished["object"] == "fine_tuning.job"
    assert finished["id"].startswith("ftjob-")
    assert (finished["training_file"], finished["validation_file"]) == (training, validation)
    assert finished["model"] == MODEL
    assert finished["seed"] == 105
    assert finished["metadata"] == {"team": "support", "run": "1"}
    assert finished["error"] is None
    assert finished["created_at"] <= finished["finished_at"] <= time.time() + 1
    assert finished["estimated_finish"] is None
    assert finished["trained_tokens"] > 40
    name = finished["fine_tuned_model"]
    assert name == f"ft:{MODEL}:tunesmith:custom-model-name:{finished['id'].removeprefix('ftjob-')}"


def test_auto_has_become_numbers_by_the_rule_that_is_written_down(finished, client):
    """40 rows: batches are halved until an epoch has 16 steps; the multiplier is the root of a quarter."""
    used = {"n_epochs": 2, "batch_size": 2, "learning_rate_multiplier": 0.5}
    assert finished["hyperparameters"] == used
    assert finished["method"] == {"type": "supervised", "supervised": {"hyperparameters": used}}
    config = client.get(f"/v1/runs/{finished['id'].replace('ftjob-', 'run_')}/config").json()
    training = config["config"]["training"]
    assert (training["num_train_epochs"], training["per_device_train_batch_size"]) == (2.0, 2)
    assert training["learning_rate"] == pytest.approx(0.0002 * 5 * 0.5)  # a tiny model wants the largest steps
    assert config["origins"]["training.num_train_epochs"] == "hyperparams"
    assert config["origins"]["training.learning_rate"] == "service"
    assert config["config"]["checkpoint"]["save_steps"] == 20  # one after each epoch


def test_the_result_file_is_a_csv_of_every_step(finished, client):
    (result,) = finished["result_files"]
    file = client.get(f"/v1/files/{result}").json()
    assert (file["filename"], file["purpose"], file["status"]) == ("step_metrics.csv", "fine-tune-results", "processed")
    table = list(csv.DictReader(io.StringIO(client.get(f"/v1/files/{result}/content").text)))
    assert [int(row["step"]) for row in table] == list(range(1, 41))
    assert all(float(row["train_loss"]) > 0 for row in table)
    assert float(table[-1]["valid_loss"]) > 0
    assert int(table[-1]["trained_tokens"]) == finished["trained_tokens"]


def test_events_come_newest_first_and_page_after_page_each_once(finished, client):
    whole = client.get(f"{JOBS}/{finished['id']}/events", params={"limit": 1000}).json()
    assert whole["has_more"] is False
    ids = [event["id"] for event in whole["data"]]
    assert len(ids) == len(set(ids)) > 40
    times = [event["created_at"] for event in whole["data"]]
    assert times == sorted(times, reverse=True)
    assert finished["fine_tuned_model"] in whole["data"][0]["message"]
    assert whole["data"][-1]["message"].startswith("Created fine-tuning job")
    turned, after = [], None
    while True:
        page = client.get(f"{JOBS}/{finished['id']}/events", params={"limit": 7} | ({"after": after} if after else {}))
        turned += [event["id"] for event in page.json()["data"]]
        after = turned[-1]
        if not page.json()["has_more"]:
            break
    assert turned == ids
    measured = next(event for event in whole["data"] if event["type"] == "metrics")
    assert measured["data"]["total_steps"] == 40
    assert "train_loss" in measured["data"] or "valid_loss" in measured["data"]


def test_an_after_that_is_no_event_of_the_job_is_refused(finished, client):
    """To pass over it would make a client turn pages for ever."""
    for after in ("ftevent-nothing", f"{finished['id'].replace('ftjob', 'ftevent')}-m1", "x-s99"):
        answer = client.get(f"{JOBS}/{finished['id']}/events", params={"after": after})
        assert refusal(answer)["param"] == "after"


def test_checkpoints_are_models_that_answer(finished, client):
    page = client.get(f"{JOBS}/{finished['id']}/checkpoints").json()
    assert [one["step_number"] for one in page["data"]] == [40, 20]
    assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][1]["id"])
    oldest = page["data"][1]
    assert oldest["fine_tuned_model_checkpoint"] == f"{finished['fine_tuned_model']}:ckpt-step-20"
    assert oldest["fine_tuning_job_id"] == finished["id"]
    assert {"step", "train_loss", "valid_loss", "full_valid_loss"} <= set(oldest["metrics"])
    after = client.get(f"{JOBS}/{finished['id']}/checkpoints", params={"after": page["first_id"], "limit": 1}).json()
    assert ([one["id"] for one in after["data"]], after["has_more"]) == ([oldest["id"]], False)
    for model in (oldest["fine_tuned_model_checkpoint"], finished["fine_tuned_model"]):
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == model


def test_the_job_is_a_run_and_its_model_a_reference_of_every_door(finished, client):
    run = client.get(f"/v1/runs/{finished['id'].replace('ftjob-', 'run_')}").json()
    assert (run["recipe"], run["status"], run["seed"]) == ("lora", "succeeded", 105)
    resolved = client.get("/v1/models/resolve", params={"ref": finished["fine_tuned_model"]}).json()
    assert resolved["run_id"] == run["run_id"]
    assert finished["fine_tuned_model"] in [one["id"] for one in client.get("/v1/models").json()["data"]]


def test_jobs_are_found_by_their_metadata(finished, client):
    for query, found in (
        ({"metadata[team]": "support"}, True),
        ({"metadata[team]": "support", "metadata[run]": "2"}, False),
        ({"metadata": "null"}, False),
        ({}, True),
    ):
        page = client.get(JOBS, params={**query, "limit": 100}).json()
        assert (finished["id"] in [job["id"] for job in page["data"]]) is found


@pytest.mark.parametrize("label", ["training_file", "validation_file"])
def test_a_file_with_wrong_rows_ends_the_job_in_its_validation(client, label):
    """With the lines, in the job and in the file."""
    good = uploaded(client, rows(12))
    bad = uploaded(client, rows(3) + b'{"messages": [{"role": "user", "content": "no answer"}]}\n{broken\n')
    job = created(client, **{"training_file": good, label: bad})
    failed = once(client, job["id"], "failed")
    assert (failed["error"]["code"], failed["error"]["param"]) == (f"invalid_{label}", label)
    for text in (failed["error"]["message"], client.get(f"/v1/files/{bad}").json()["status_details"]):
        assert "line 4" in text
        assert "line 5" in text
    assert failed["fine_tuned_model"] is None
    assert failed["finished_at"] is not None
    event = client.get(f"{JOBS}/{job['id']}/events", params={"limit": 1}).json()["data"][0]
    assert (event["level"], "line 4" in event["message"]) == ("error", True)


def test_rows_that_the_method_cannot_use_are_told(client):
    pair = b'{"input": {"messages": [{"role": "user", "content": "q"}]}, "preferred_output": '
    pair += (
        b'[{"role": "assistant", "content": "a"}], "non_preferred_output": [{"role": "assistant", "content": "b"}]}\n'
    )
    job = created(client, training_file=uploaded(client, pair * 12))
    assert "preference" in once(client, job["id"], "failed")["error"]["message"]


def test_a_file_of_prompts_is_for_reinforcement_and_one_with_a_forgotten_answer_is_wrong(client):
    prompt = b'{"messages": [{"role": "user", "content": "2+2?"}], "reference_answer": "4"}\n'
    of_prompts = uploaded(client, prompt * 12)
    with_answers = uploaded(client, rows(3) + prompt)
    assert file_once_checked(client, of_prompts)["status"] == "processed"
    wrong = file_once_checked(client, with_answers)
    assert wrong["status"] == "error"
    assert "line 4" in wrong["status_details"]
    failed = once(client, created(client, training_file=of_prompts)["id"], "failed")
    assert "prompt" in failed["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"training_file": "file-nothing"}, "training_file"),
        ({"validation_file": "file-nothing"}, "validation_file"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata.k"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}}}, "method.type"),
        ({"method": {"type": "magic"}}, "method.type"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"learning_rate_multiplier": -1}}, "hyperparameters.learning_rate_multiplier"),
        ({"recipe": "nothing"}, "recipe"),
        ({"hyperparams": {"lora.rr": 4}}, "hyperparams.lora.rr"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_what_makes_no_job_is_refused_with_its_field(client, fields, param):
    good = uploaded(client, rows(12))
    answer = client.post(JOBS, json={"model": MODEL, "training_file": good, **fields})
    assert refusal(answer)["param"] == param


def test_what_would_swell_the_record_is_refused(client):
    grader = {"type": "string_check", "name": "g", "input": "x" * 70_000, "reference": "y", "operation": "eq"}
    method = {"type": "supervised", "supervised": {"grader": grader}}
    answer = client.post(JOBS, json={"model": MODEL, "training_file": uploaded(client, rows(12)), "method": method})
    assert refusal(answer, 413)["param"] == "method"


def test_an_unknown_model_is_told_what_there_is(client):
    answer = client.post(JOBS, json={"model": "gpt-99", "training_file": uploaded(client, rows(12))})
    error = refusal(answer, 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "tiny" in error["message"]
    assert MODEL in error["message"]


def test_the_same_request_again_within_seconds_is_the_same_job(client):
    """Clients send no key, and send a request again when its answer was lost."""
    body = {"model": MODEL, "training_file": uploaded(client, rows(12)), "seed": 1}
    first = client.post(JOBS, json=body).json()["id"]
    assert client.post(JOBS, json=body).json()["id"] == first
    assert client.post(JOBS, json={**body, "seed": 2}).json()["id"] != first
    client.post(f"{JOBS}/{first}/cancel").raise_for_status()
    sent_again = {"X-Stainless-Retry-Count": "1"}
    assert client.post(JOBS, json=body, headers=sent_again).json()["id"] == first
    second = client.post(JOBS, json=body, headers={"X-Stainless-Retry-Count": "0"}).json()["id"]
    assert second != first  # nobody wants again what is over
    assert client.post(JOBS, json=body, headers=sent_again).json()["id"] == second
    again = client.post(JOBS, json={**body, "seed": 2}, headers=sent_again).json()
    assert again["seed"] == 2
    for job in client.get(JOBS).json()["data"]:
        if job["training_file"] == body["training_file"]:
            client.post(f"{JOBS}/{job['id']}/cancel").raise_for_status()


def test_the_older_form_of_hyperparameters_counts_as_well(client):
    job = created(
        client,
        training_file=uploaded(client, rows(12)),
        hyperparameters={"n_epochs": 1, "batch_size": 12, "learning_rate_multiplier": 0.2},
    )
    done = once(client, job["id"], "succeeded")
    assert done["hyperparameters"] == {"n_epochs": 1, "batch_size": 12, "learning_rate_multiplier": 0.2}
    config = client.get(f"/v1/runs/{job['id'].replace('ftjob-', 'run_')}/config").json()["config"]["training"]
    assert (config["per_device_train_batch_size"], config["gradient_accumulation_steps"]) == (6, 2)
    assert config["learning_rate"] == pytest.approx(0.0002 * 5 * 0.2)


def test_a_training_of_another_door_is_a_job_here(client):
    run = client.post(
        "/api/train/start",
        json={
            "strategy": "lora",
            "dataset_path": uploaded(client, rows(12)).replace("file-", "upl_"),
            "config": {"model_path": "tiny", "max_steps": 2},
            "output_dir": "state/demo/from_another_door",
        },
    )
    assert run.status_code in (200, 201), run.text
    newest = client.get(JOBS, params={"limit": 1}).json()["data"][0]
    assert newest["model"] == "tiny"
    assert newest["training_file"].startswith("file-")
    done = once(client, newest["id"], "succeeded")
    assert done["fine_tuned_model"].startswith("ft:tiny:tunesmith::")
    assert done["method"]["type"] == "supervised"


def test_cancelled_twice_is_cancelled_and_what_is_over_cannot_be(client, finished):
    job = created(client, training_file=uploaded(client, rows(200)), hyperparameters={"n_epochs": 50})
    for _ in range(2):
        assert client.post(f"{JOBS}/{job['id']}/cancel").json()["status"] == "cancelled"
    for call in ("cancel", "pause", "resume"):
        refusal(client.post(f"{JOBS}/{finished['id']}/{call}"))
    refusal(client.post(f"{JOBS}/{job['id']}/resume"))
    refusal(client.post(f"{JOBS}/ftjob-nothing/pause"), 404)


def test_a_job_is_paused_and_resumed_to_its_end(client):
    job = created(client, training_file=uploaded(client, rows(200)), hyperparameters={"n_epochs": 3, "batch_size": 4})
    once(client, job["id"], "running")
    paused = client.post(f"{JOBS}/{job['id']}/pause")
    assert paused.json()["status"] == "paused", paused.text
    assert shown(client, job["id"])["status"] == "paused"
    assert client.post(f"{JOBS}/{job['id']}/resume").json()["status"] in ("queued", "running")
    done = once(client, job["id"], "succeeded")
    told = [
        event["message"] for event in client.get(f"{JOBS}/{job['id']}/events", params={"limit": 1000}).json()["data"]
    ]
    assert any("paused" in message for message in told)
    assert any("resumed" in message for message in told)
    (result,) = done["result_files"]
    table = list(csv.DictReader(io.StringIO(client.get(f"/v1/files/{result}/content").text)))
    assert [int(row["step"]) for row in table] == list(range(1, 151))


def test_a_file_that_a_job_uses_stays(client):
    training, validation = uploaded(client, rows(200)), uploaded(client, rows(5))
    job = created(client, training_file=training, validation_file=validation, hyperparameters={"n_epochs": 50})
    for file in (training, validation):
        assert job["id"].replace("ftjob-", "run_") in refusal(client.delete(f"/v1/files/{file}"))["message"]
    client.post(f"{JOBS}/{job['id']}/cancel").raise_for_status()
    for file in (training, validation):
        assert client.delete(f"/v1/files/{file}").json() == {"id": file, "object": "file", "deleted": True}
