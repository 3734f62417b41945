"""POST /api/train/start and what follows: the original's requests work, and the model appears where it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from task_parts import ROW, config_of, ended, start, status, write_home

from support.server import ServerProcess, polled


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_home(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[ServerProcess]:
    with ServerProcess.start(home / "state", home / "recipes", {"TUNESMITH_MAX_CPU_RUNS": "4"}) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def asked(home: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """A request as the original's clients send it; keyword arguments go into its config."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)

    def ask(strategy: str = "lora", output: str = "model", **config: Any) -> dict[str, Any]:
        return {
            "strategy": strategy,
            "dataset_path": str(home / "rows.jsonl"),
            "output_dir": str(home / "out" / name / output),
            "config": {"model_path": str(home / "model"), **config},
        }

    return ask


LORA = {
    "per_device_train_batch_size": 4,
    "learning_rate": 2e-4,
    "max_steps": 10,
    "lora_config": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.05},
}


def refused(client: httpx.Client, body: dict[str, Any], status: int = 422) -> dict[str, Any]:
    answer = client.post("/api/train/start", json=body)
    assert answer.status_code == status, answer.text
    problem: dict[str, Any] = answer.json()
    return problem


def places(problem: dict[str, Any]) -> dict[str, str]:
    """What is said of each place."""
    return {fault["where"]: fault["message"] for fault in problem["errors"]}


def test_a_lora_training_as_the_original_asks_for_it(client, home, asked):
    """Its body word for word; the status shows percent, loss and steps, and the model is in the folder when it says completed."""
    body = asked(**LORA)
    started = start(client, **body)
    assert started["status"] == "pending"
    assert started["task_id"] in started["message"]
    task = ended(client, started["task_id"])
    assert (task["status"], task["run_status"], task["error"]) == ("completed", "succeeded", None)
    assert (task["progress"], task["current_step"], task["total_steps"]) == (100.0, 10, 10)
    assert (task["loss"], task["learning_rate"], task["epoch"], task["eta_seconds"]) == (0.25, 0.0, 1.0, 0.0)
    assert (task["strategy"], task["recipe"], task["run_id"]) == ("lora", "lora", task["task_id"])
    place = Path(task["output_dir"])
    assert str(place) == body["output_dir"]
    assert sorted(path.name for path in place.rglob("*")) == ["adapter_config.json", "adapter_model.safetensors", "sub"]
    kept = home / "state/runs" / task["run_id"] / "output"
    assert (place / "sub/adapter_model.safetensors").samefile(kept / "sub/adapter_model.safetensors")
    assert [path.name for path in place.parent.iterdir()] == ["model"]
    config = config_of(home, task["run_id"])
    assert config["lora"] == {**LORA["lora_config"], "merge": False}
    training = config["training"]
    assert (training["per_device_train_batch_size"], training["learning_rate"], training["max_steps"]) == (4, 2e-4, 10)


def test_a_full_training_that_fails(client, asked):
    """`trl` is the recipe sft; the reason is shown and nothing is put anywhere."""
    body = asked("trl", num_train_epochs=3, learning_rate=5e-5)
    task = ended(client, start(client, **body)["task_id"])
    assert (task["status"], task["strategy"], task["recipe"]) == ("failed", "trl", "sft")
    assert task["error"] == {"message": "out of cheese", "where": "cheese", "mend": "buy some"}
    assert not Path(body["output_dir"]).exists()


def test_the_spellings_of_transformers(client, home, asked):
    """What TrainingArguments calls an option is the recipe's option, and what cannot matter here is said to have no effect."""
    body = asked(
        bf16=True,
        fp16=False,
        gradient_accumulation_steps=2,
        logging_steps=1,
        save_steps=50,
        save_total_limit=1,
        warmup_ratio=0.1,
        warmup_steps=0,
        max_seq_length=256,
        lr_scheduler_type="linear",
        weight_decay=0.01,
        seed=7,
        max_steps=-1,
        num_train_epochs=1,
        evaluation_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        dataloader_num_workers=4,
        lora_config={"r": 4, "target_modules": "all-linear", "bias": "none", "task_type": "CAUSAL_LM"},
    )
    started = start(client, **body)
    assert started["warnings"] == [
        "remove_unused_columns has no effect here",
        "dataloader_num_workers has no effect here",
    ]
    config = config_of(home, started["task_id"])
    training = config["training"]
    assert (training["warmup_steps"], training["max_steps"], training["num_train_epochs"]) == (0.1, None, 1.0)
    assert (training["lr_scheduler_type"], training["weight_decay"], training["seed"]) == ("linear", 0.01, 7)
    assert (training["gradient_accumulation_steps"], training["logging_steps"]) == (2, 1)
    assert (config["data"]["max_length"], config["model"]["dtype"]) == (256, "auto")
    assert config["evaluation"]["strategy"] == "never"
    assert config["checkpoint"] == {"save_steps": 50, "save_total_limit": 1}
    assert (config["lora"]["r"], config["lora"]["target_modules"]) == (4, ["all-linear"])
    assert ended(client, started["task_id"])["warnings"] == started["warnings"]


def test_half_precision_means_what_the_hardware_is_fast_at(client, home, asked):
    """fp16 is computed in bfloat16 and that is said; neither of the two is float32; a dtype says it more exactly."""
    for output, given, dtype in (
        ("one", {"fp16": True}, "auto"),
        ("two", {"bf16": False, "fp16": False}, "float32"),
        ("three", {"bf16": True, "torch_dtype": "torch.bfloat16"}, "bfloat16"),
    ):
        started = start(client, **asked(output=output, **given))
        assert config_of(home, started["task_id"])["model"]["dtype"] == dtype
        assert bool(started["warnings"]) == bool(given.get("fp16"))


def test_everything_wrong_is_said_at_once_in_the_words_of_the_request(client, asked):
    """Unknown options with the nearest name, values that are wrong, and what no recipe does: under the names that were sent."""
    problem = refused(
        client,
        asked(
            learning_rte=1e-4,
            max_steps=0,
            bf16="yes",
            warmup_ratio=3,
            eval_strategy="sometimes",
            push_to_hub=True,
            lora_config={"rank_": 8, "use_dora": True},
        ),
    )
    said = places(problem)
    assert set(said) == {
        "config.learning_rte",
        "config.max_steps",
        "config.bf16",
        "config.warmup_ratio",
        "config.eval_strategy",
        "config.push_to_hub",
        "config.lora_config.rank_",
        "config.lora_config.use_dora",
    }
    mends = {fault["where"]: fault.get("mend") for fault in problem["errors"]}
    assert mends["config.learning_rte"] == "did you mean training.learning_rate?"


def test_an_adapter_of_a_full_training_is_refused(client, asked):
    """With the strategy that trains one."""
    problem = refused(client, asked("trl", **LORA))
    assert places(problem) == {"config.lora_config": "recipe sft trains no adapter"}
    assert "lora" in problem["errors"][0]["mend"]


@pytest.mark.parametrize(
    ("strategy", "status", "words"),
    [("loar", 400, "lora"), ("evaluate", 422, "trains nothing"), ("../lora", 400, "trl")],
)
def test_a_strategy_is_a_recipe_that_trains(client, asked, strategy, status, words):
    """Anything else is refused with what there is."""
    problem = refused(client, asked(strategy), status)
    assert problem["where"] == "strategy"
    assert words in problem["detail"] + problem["mend"]


def test_what_is_missing_is_named_by_its_field(client, asked):
    """Model and data at once, in the request's words."""
    body = asked()
    problem = refused(client, {**body, "dataset_path": "nowhere.jsonl"}, 400)
    assert problem["where"] == "dataset_path"
    body["config"]["model_path"] = "./no-such-model"
    assert refused(client, body, 400)["where"] == "config.model_path"
    assert refused(client, {**body, "config": {}}, 400)["where"] == "config.model_path"
    assert "config.model_path" in places(refused(client, asked(model_path=7)))


def test_outputs_lie_below_the_allowed_roots_and_over_nothing(client, home, asked, tmp_path_factory):
    """Outside, in the state folder, over files, over a file, and where another task puts its output: each is refused."""
    body = asked()
    for outside in (str(tmp_path_factory.mktemp("elsewhere")), "/etc/model", str(home / "state/journals")):
        assert refused(client, {**body, "output_dir": outside}, 403)["where"] == "output_dir"
    full = home / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    assert refused(client, {**body, "output_dir": str(full)}, 409)["where"] == "output_dir"
    assert refused(client, {**body, "output_dir": str(full / "mine.txt")}, 422)["where"] == "output_dir"
    assert (full / "mine.txt").read_text() == "mine"
    hold = home / "recipes/lora/hold"
    hold.touch()
    try:
        first = start(client, **body)["task_id"]
        for place in (body["output_dir"], body["output_dir"] + "/below", str(Path(body["output_dir"]).parent)):
            problem = refused(client, {**body, "output_dir": place}, 409)
            assert first in problem["detail"]
    finally:
        hold.unlink()
    assert ended(client, first)["status"] == "completed"


def test_what_came_into_the_folder_meanwhile_stays(client, home, asked):
    """The task fails with where the model is; nothing is written over, and nothing half done is left beside."""
    hold = home / "recipes/lora/hold"
    hold.touch()
    body = asked()
    place = Path(body["output_dir"])
    try:
        task_id = start(client, **body)["task_id"]
        place.mkdir(parents=True)
        (place / "mine.txt").write_text("mine")
    finally:
        hold.unlink()
    task = ended(client, task_id)
    assert (task["status"], task["run_status"]) == ("failed", "succeeded")
    assert str(home / "state/runs" / task_id / "output") in task["error"]["mend"]
    assert [path.name for path in place.iterdir()] == ["mine.txt"]
    assert [path.name for path in place.parent.iterdir()] == ["model"]


def test_an_empty_folder_is_filled(client, asked):
    body = asked()
    Path(body["output_dir"]).mkdir(parents=True)
    assert ended(client, start(client, **body)["task_id"])["status"] == "completed"
    assert (Path(body["output_dir"]) / "adapter_config.json").exists()


def test_a_repeat_with_its_key_begins_nothing(client, asked):
    """The same task, also when its folder is full by then; another body is refused."""
    body, key = asked(), {"Idempotency-Key": "once"}
    first = client.post("/api/train/start", json=body, headers=key).raise_for_status().json()
    ended(client, first["task_id"])
    again = client.post("/api/train/start", json=body, headers=key)
    assert (again.status_code, again.json()["task_id"], again.json()["status"]) == (200, first["task_id"], "completed")
    other = client.post("/api/train/start", json={**body, "notes": "x"}, headers=key)
    assert other.status_code == 409


def test_the_list_has_every_training_newest_first(client, home, asked):
    """In pages, by the header Link; a run of another door among them, and no run that trains nothing."""
    first = start(client, **asked(output="one"))["task_id"]
    experiment = client.post("/v1/experiments", json={"name": "x", "task_type": "lora"}).json()["id"]
    run = {"model": str(home / "model"), "dataset": {"name": str(home / "rows.jsonl")}}
    other = client.post(f"/v1/experiments/{experiment}/runs", json=run).json()["run_id"]
    scored = client.post(f"/v1/experiments/{experiment}/runs", json={**run, "recipe": "evaluate"}).json()["run_id"]
    newest = client.get("/api/train/tasks", params={"limit": 1})
    assert [task["task_id"] for task in newest.json()] == [other]
    assert newest.json()[0]["strategy"] == "lora"
    following = newest.headers["link"].partition("<")[2].partition(">")[0]
    assert [task["task_id"] for task in client.get(following).json()] == [first]
    every = client.get("/api/train/tasks").raise_for_status().json()
    assert scored not in [task["task_id"] for task in every]
    assert status(client, other)["output_dir"] is None or ended(client, other)["output_dir"]
    assert client.get("/api/train/status/run_nothing").status_code == 404


def test_a_folder_is_its_training_file(client, home, asked):
    """With the validation rows beside it, as data processing leaves them."""
    folder = home / "split"
    folder.mkdir()
    for name in ("train.json", "val.json", "test.json"):
        (folder / name).write_text(ROW)
    started = start(client, **{**asked(), "dataset_path": str(folder)})
    data = config_of(home, started["task_id"])["data"]
    assert data["train_file"] == str(folder / "train.json")
    assert data["validation_file"] == str(folder / "val.json")


def test_a_cancelled_task(client, home, asked):
    """Cancelled as any run; while it trains it is half way."""
    hold = home / "recipes/lora/hold"
    hold.touch()
    try:
        task_id = start(client, **asked())["task_id"]
        for task in polled(lambda: status(client, task_id)):
            if task["current_step"]:
                break
        assert (task["status"], task["progress"], task["loss"]) == ("running", 50.0, 0.5)
        client.post(f"/v1/runs/{task_id}/cancel").raise_for_status()
    finally:
        hold.unlink()
    assert ended(client, task_id)["status"] == "cancelled"
