"""Projects over real HTTP: made, found, changed, archived, and started only when everything they name is there."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from project_parts import GOOD, make, wait, write_recipes, write_training_folder

from support.server import ServerProcess, polled, wait_for_run

REQUEST = {"name": "p", "dataset_name": "orders.jsonl", "training_yaml_name": "orders.yaml"}


def problem(answer, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    return answer.json()


def test_a_project_is_made_and_found(client):
    """By id and by name, at the path and its alias, among the projects and among the experiments."""
    made = make(client, "订单 é", description="JSON from orders", owner="ann", tags=["json", "demo"])
    assert made["status"] == "active"
    assert made["runs"] == []
    assert (made["dataset_name"], made["training_yaml_name"]) == ("orders.jsonl", "orders.yaml")
    for base in ("/api/projects", "/projects"):
        for ref in (made["id"], quote("订单 é")):
            assert client.get(f"{base}/{ref}").json() == made
        assert made["id"] in {one["id"] for one in client.get(base, params={"owner": "ann"}).json()}
    shown = client.get(f"/v1/experiments/{made['id']}/detail").json()
    assert shown["name"] == "订单 é"
    assert shown["project"]["training_yaml_name"] == "orders.yaml"


def test_lists_are_filtered_and_paged(client):
    """A plain array, by status, tag and owner; the header `Link` leads to the next page, and every project is on one."""
    names = [make(client, f"paged {number}", owner="pager", tags=[f"t{number % 2}"])["id"] for number in range(5)]
    client.patch(f"/api/projects/{names[0]}", json={"status": "archived"})
    page = client.get("/projects", params={"owner": "pager", "limit": 2})
    found = [one["id"] for one in page.json()]
    while "next" in page.links:
        page = client.get(page.links["next"]["url"])
        found += [one["id"] for one in page.json()]
        assert len(page.json()) <= 2
    assert found == names[::-1]

    def listed(**query) -> list[str]:
        return [one["id"] for one in client.get("/api/projects", params={"owner": "pager", **query}).json()]

    assert listed(tag="t1") == [names[3], names[1]]
    assert listed(status="archived") == [names[0]]
    assert listed(status="active", tag="t0") == [names[4], names[2]]
    assert problem(client.get("/api/projects", params={"status": "asleep"}), 422)["errors"][0]["where"] == "status"


def test_only_what_is_sent_is_changed(client):
    """PATCH leaves the rest alone, and refuses what it does not know."""
    made = make(client, "patched", description="one", owner="ann", tags=["a"])
    path = f"/api/projects/{made['id']}"
    assert client.patch(path, json={}).json() == made
    assert client.patch(path, json={"description": "two"}).json() == {**made, "description": "two"}
    assert client.patch("/projects/patched", json={"tags": [], "owner": ""}).json()["tags"] == []
    assert client.get(path).json() == {**made, "description": "two", "tags": [], "owner": ""}
    for wrong in ({"name": "other"}, {"status": "gone"}, {"tags": "a"}, {"description": None}, {"dataset_name": "x"}):
        problem(client.patch(path, json=wrong), 422)


def test_a_name_belongs_to_one_active_project(client):
    """A second one is refused; archiving frees the name, and taking up again needs it."""
    first = make(client, "mine")
    assert "mine" in problem(client.post("/api/projects", json={**REQUEST, "name": "mine"}), 409)["detail"]
    client.patch("/api/projects/mine", json={"status": "archived"})
    assert client.get("/api/projects/mine").json()["id"] == first["id"]
    second = make(client, "mine")
    assert client.get("/api/projects/mine").json()["id"] == second["id"]
    problem(client.patch(f"/api/projects/{first['id']}", json={"status": "active"}), 409)
    client.patch(f"/api/projects/{second['id']}", json={"status": "archived"})
    assert client.patch(f"/api/projects/{first['id']}", json={"status": "active"}).json()["status"] == "active"
    problem(client.post("/api/projects", json={**REQUEST, "name": first["id"]}), 409)


def test_two_at_once_do_not_both_get_a_name(server):
    """Of many requests for one name, one makes the project."""
    statuses: list[int] = []

    def ask() -> None:
        with server.client() as client:
            statuses.append(client.post("/projects", json={**REQUEST, "name": "race"}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [409] * 7


def test_an_archived_project_takes_no_runs(client):
    """Neither at this door nor at the experiments'."""
    made = make(client, "old")
    client.patch("/api/projects/old", json={"status": "archived"})
    assert "active" in problem(client.post("/api/projects/old/runs"), 409)["mend"]
    problem(client.post(f"/v1/experiments/{made['id']}/runs", json={"recipe": "plain"}), 409)
    client.patch("/api/projects/old", json={"status": "active"})
    assert client.post(f"/v1/experiments/{made['id']}/runs", json={"recipe": "plain"}).status_code == 201


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": " ", "dataset_name": "../secret", "training_yaml_name": "/etc/passwd"},
        {"name": "a/b", "dataset_name": "a/../../b", "training_yaml_name": "~/x.yaml"},
        {"name": "..", "dataset_name": "nul\0l", "training_yaml_name": ""},
        {"name": "line\nbreak", "dataset_name": ".", "training_yaml_name": ".."},
    ],
)
def test_names_that_lead_elsewhere_are_refused_together(client, wrong):
    """Each field is named; nothing is made."""
    found = problem(client.post("/api/projects", json=wrong), 422)["errors"]
    assert [fault["where"] for fault in found] == ["name", "dataset_name", "training_yaml_name"]
    assert all(fault["mend"] for fault in found)


def test_a_request_with_unknown_or_missing_fields_is_refused(client):
    """A typing error is not ignored."""
    problem(client.post("/api/projects", json={**REQUEST, "ower": "ann"}), 422)
    problem(client.post("/api/projects", json={"name": "x"}), 422)
    make(client, "strict")
    problem(client.post("/api/projects/strict/runs", json={"hyperparam": {}}), 422)
    problem(client.post("/api/projects/strict/runs", json=[]), 422)


@pytest.mark.parametrize(
    "ref", ["nothing", "..%2f..%2fkeys", "%2e%2e", "exp_0", "a%00b", "%252e%252e%252f", "x" * 2000]
)
def test_a_ref_that_names_nothing_is_not_found(client, ref):
    """Whatever is in it, at every call."""
    for path in (ref, f"{ref}/runs", f"{ref}/runs/run_1", f"{ref}/runs/run_1/logs", f"{ref}/runs/run_1/artifacts"):
        problem(client.get(f"/api/projects/{path}"), 404)
    problem(client.post(f"/projects/{ref}/runs"), 404)
    problem(client.patch(f"/projects/{ref}", json={}), 404)


def test_an_experiment_is_no_project(client, done):
    """Neither found here nor allowed to lend its runs."""
    other = client.post("/v1/experiments", json={"name": "plain", "task_type": "sft"}).json()["id"]
    problem(client.get(f"/api/projects/{other}"), 404)
    make(client, "stranger")
    problem(client.get(f"/api/projects/stranger/runs/{done['id']}"), 404)
    problem(client.get(f"/api/projects/stranger/runs/{done['id']}/artifacts"), 404)


def test_a_run_of_a_project_is_shown_whole(client, done):
    """Status, progress, command, latest lines, metrics and files; in the list, in the project and natively, too."""
    assert (done["status"], done["progress"], done["recipe"]) == ("succeeded", 1.0, "lora")
    assert done["metrics"]["loss"] == 0.25
    assert done["start_command"].startswith("bash ")
    assert any("ERROR - nearly failed" in line for line in done["logs"])
    assert "output/adapter_model.safetensors" in [one["path"] for one in done["artifacts"]]
    assert all(done[field] for field in ("created_at", "started_at", "finished_at"))
    assert client.get("/projects/orders/runs").json()["runs"][-1] == done
    project = client.get("/api/projects/orders").json()
    assert project["id"] == done["project_id"]
    assert project["runs"][-1]["id"] == done["id"]
    native = client.get(f"/v1/runs/{done['id']}").json()
    assert native["experiment_id"] == project["id"]
    assert native["train_config"].endswith("/configs/orders.yaml")
    assert native["dataset"]["path"].endswith("/datasets/orders.jsonl")


def test_overrides_go_before_the_train_config(client, server):
    """Model, hyperparameters, notes and seed of the request; without a body, none."""
    make(client, "overridden")
    wanted = {
        "hyperparams": {"learning_rate": 0.5},
        "seed": 7,
        "notes": "second",
        "priority": 3,
        "model": str(server.state_dir.parent / "model"),
    }
    run = client.post("/api/projects/overridden/runs", json=wanted).raise_for_status().json()
    native = wait_for_run(client, run["id"])
    assert (native["notes"], native["priority"], native["seed"]) == ("second", 3, 7)
    config = (server.state_dir / "runs" / run["id"] / "config.yaml").read_text()
    assert "learning_rate: 0.5" in config
    assert "seed: 7" in config
    assert "max_steps: 2" in config


def test_all_that_is_missing_is_listed_at_once(client, training):
    """The dataset, the train config and the model in one answer, each with the nearest name; nothing is started."""
    make(client, "empty", dataset_name="order.jsonl", training_yaml_name="order.yaml")
    found = problem(client.post("/api/projects/empty/runs", json={"model": "./modle"}), 400)["errors"]
    assert [fault["where"] for fault in found] == ["dataset_name", "training_yaml_name", "model"]
    assert "did you mean orders.jsonl?" in found[0]["mend"]
    assert "did you mean orders.yaml?" in found[1]["mend"]
    assert client.get("/api/projects/empty/runs").json()["runs"] == []
    (training / "configs/no-model.yaml").write_text(GOOD.replace("./model", "./nowhere"))
    make(client, "no model", dataset_name="order.jsonl", training_yaml_name="no-model.yaml")
    found = problem(client.post("/api/projects/no%20model/runs"), 400)["errors"]
    assert [fault["where"] for fault in found] == ["dataset_name", "model"]
    (training / "datasets/order.jsonl").write_text('{"messages": []}\n')
    (training / "configs/order.yaml").write_text(GOOD)
    assert client.post("/api/projects/empty/runs").status_code == 201


@pytest.mark.parametrize("kind", ["link", "folder link", "fifo", "folder", "device", "loop"])
def test_only_regular_files_inside_the_training_folder_count(client, training, kind):
    """A link that leads out, a pipe, a folder or a device is not the file that was meant, and is never opened."""
    outside = training.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret").write_text("job: {type: lora}\n")
    name = f"odd {kind}"
    for folder in ("datasets", "configs"):
        path = training / folder / name
        match kind:
            case "link":
                path.symlink_to(outside / "secret")
            case "folder link":
                path.symlink_to(outside)
            case "fifo":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case "device":
                path.symlink_to("/dev/zero")
            case "loop":
                path.symlink_to(path)
    within = f"{name}/secret" if kind == "folder link" else name
    make(client, name, dataset_name=within, training_yaml_name=within)
    answer = problem(client.post(f"/api/projects/{quote(name)}/runs"), 400)
    assert [fault["where"] for fault in answer["errors"]] == ["dataset_name", "training_yaml_name"]
    assert "secret" not in json.dumps(answer).replace(within, "")


def test_a_link_that_stays_inside_is_fine(client, training):
    """And so is a file in a folder below."""
    (training / "datasets/team").mkdir()
    (training / "datasets/team/rows.jsonl").write_text('{"messages": []}\n')
    (training / "configs/latest.yaml").symlink_to("orders.yaml")
    make(client, "linked", dataset_name="team/rows.jsonl", training_yaml_name="latest.yaml")
    assert client.post("/api/projects/linked/runs").status_code == 201


@pytest.mark.parametrize(
    ("config", "status", "where", "said"),
    [
        ("job: {type: lorra}\n", 422, "train_config.job.type", "lora"),
        ("job: {type: rl, method: dpoo}\n", 422, "train_config.job.method", "dpo"),
        ("job: {type: rl}\n", 422, "train_config.job.method", "dpo"),
        ("model: {base: ./model}\n", 422, "train_config.job.type", "recipe"),
        ("job: 3\n", 422, "train_config.job", "mapping"),
        ("- a list\n", 422, "bad.yaml", "mapping"),
        ("job: {type: lora\n", 422, "bad.yaml", "YAML"),
        ("job: {type: !!python/object:os.system x}\n", 422, "bad.yaml", "tag"),
        ("a: 1\na: 2\n", 422, "bad.yaml", "a"),
        ("", 422, "bad.yaml", "mapping"),
    ],
)
def test_a_train_config_says_which_recipe(client, training, config, status, where, said):
    """A wrong one is refused with the place and the nearest name."""
    (training / "configs/bad.yaml").write_text(config)
    name = f"config {abs(hash((config, where)))}"
    make(client, name, training_yaml_name="bad.yaml")
    answer = problem(client.post(f"/api/projects/{quote(name)}/runs"), status)
    assert where in answer["where"]
    assert said in answer["detail"] + answer["mend"]


def test_reinforcement_learning_is_named_by_its_method(client, training):
    """`rl` with `method: dpo` runs the recipe dpo."""
    (training / "configs/dpo.yaml").write_text("job: {type: rl, method: dpo}\nmodel: {base: ./model}\n")
    make(client, "preferences", training_yaml_name="dpo.yaml")
    assert client.post("/api/projects/preferences/runs").json()["recipe"] == "dpo"


def test_every_fault_of_a_config_is_listed(client, training):
    """Of the file and of the request together, each with its place and the right name."""
    (training / "configs/faults.yaml").write_text(GOOD.replace("max_steps", "max_stps") + "datta: {}\n")
    make(client, "faulty", training_yaml_name="faults.yaml")
    answer = client.post("/api/projects/faulty/runs", json={"hyperparams": {"learning_rate": "fast", "sed": 1}})
    places = {fault["where"] for fault in problem(answer, 422)["errors"]}
    assert places == {
        "train_config.training.max_stps",
        "train_config.datta",
        "hyperparams.learning_rate",
        "hyperparams.sed",
    }


@pytest.mark.parametrize(
    ("dataset", "config"),
    [
        ("datasets/orders.jsonl", "configs/orders.yaml"),
        ("./datasets/orders.jsonl", "./configs/orders.yaml"),
        ("orders.jsonl", "configs/orders.yaml"),
        ("elsewhere/rows.jsonl", "elsewhere/orders.yaml"),
    ],
)
def test_files_are_named_below_the_training_folder(client, training, dataset, config):
    """With `datasets/` and `configs/` in front or without, and anywhere else below it."""
    (training / "elsewhere").mkdir(exist_ok=True)
    (training / "elsewhere/rows.jsonl").write_text('{"messages": []}\n')
    (training / "elsewhere/orders.yaml").write_text(GOOD)
    made = make(client, f"below {abs(hash((dataset, config)))}", dataset_name=dataset, training_yaml_name=config)
    answer = client.post(f"/api/projects/{made['id']}/runs")
    assert answer.status_code == 201, answer.text
    native = client.get(f"/v1/runs/{answer.json()['id']}").json()
    assert native["dataset"]["path"] == str(training / ("datasets/orders.jsonl" if "orders" in dataset else dataset))
    assert native["train_config"] == str(training / ("configs/orders.yaml" if "configs" in config else config))


def test_what_is_missing_below_the_training_folder_is_listed(client, training):
    """Both files at once, with the nearest name as it has to be written."""
    made = make(client, "nowhere", dataset_name="datasets/ordres.jsonl", training_yaml_name="configs/ordres.yaml")
    found = problem(client.post(f"/api/projects/{made['id']}/runs"), 400)["errors"]
    assert [fault["where"] for fault in found] == ["dataset_name", "training_yaml_name"]
    assert "orders.jsonl?" in found[0]["mend"]
    assert "orders.yaml?" in found[1]["mend"]


def test_a_folder_of_datasets_may_lie_behind_a_link(tmp_path):
    """The operator's own link for `datasets/` is no way out, however the files in it are named."""
    training = write_training_folder(tmp_path)
    (training / "datasets").rename(tmp_path / "large-disk")
    (training / "datasets").symlink_to(tmp_path / "large-disk")
    recipes = write_recipes(tmp_path / "recipes")
    with ServerProcess.start(tmp_path / "state", recipes) as server, server.client() as client:
        for number, name in enumerate(("orders.jsonl", "datasets/orders.jsonl")):
            made = make(client, f"linked {number}", dataset_name=name)
            assert client.post(f"/api/projects/{made['id']}/runs").status_code == 201


def test_a_train_config_may_name_its_model_by_an_alias(client, training):
    """`model_path` of other tools is `model.base` of the recipe, in its section or above all of them."""
    for number, written in enumerate(("model: {model_path: ./model}", "model_path: ./model")):
        (training / "configs/aliased.yaml").write_text(f"job: {{type: lora}}\n{written}\n")
        made = make(client, f"aliased {number}", training_yaml_name="aliased.yaml")
        answer = client.post(f"/api/projects/{made['id']}/runs")
        assert answer.status_code == 201, answer.text
        assert client.get(f"/v1/runs/{answer.json()['id']}").json()["model"] == "./model"


def test_uploads_are_found_by_name(client, server):
    """The newest upload of that name; the train config of the dataset that it lies in, though others have one so named."""
    datasets = [client.post("/api/v1/datasets", json={"name": f"up {n}"}).json()["id"] for n in range(2)]
    for number, dataset in enumerate(datasets):
        rows = {"file": ("orders-up.jsonl", f'{{"messages": [], "n": {number}}}\n', "application/jsonl")}
        assert client.put(f"/api/v1/datasets/{dataset}/files", files=rows).status_code in (200, 201)
        config = {"file": ("up.yaml", GOOD.replace("max_steps: 2", f"max_steps: {number + 10}"), "application/yaml")}
        answer = client.put(f"/api/v1/datasets/{dataset}/train-config", files=config)
        assert answer.status_code in (200, 201), answer.text
    make(client, "uploaded", dataset_name="orders-up.jsonl", training_yaml_name="up.yaml")
    run = client.post("/api/projects/uploaded/runs").raise_for_status().json()
    assert "max_steps: 11" in (server.state_dir / "runs" / run["id"] / "config.yaml").read_text()
    path = wait_for_run(client, run["id"])["dataset"]["path"]
    assert Path(path).read_text() == '{"messages": [], "n": 1}\n'
    make(client, "by dataset", dataset_name="up 0", training_yaml_name="up.yaml")
    run = client.post("/api/projects/by%20dataset/runs").raise_for_status().json()
    assert "max_steps: 10" in (server.state_dir / "runs" / run["id"] / "config.yaml").read_text()
    empty = client.post("/api/v1/datasets", json={"name": "hollow"}).json()["id"]
    make(client, "hollow", dataset_name=empty, training_yaml_name="nowhere.yaml")
    found = problem(client.post("/api/projects/hollow/runs"), 400)["errors"]
    assert [fault["where"] for fault in found] == ["dataset_name", "training_yaml_name"]


def test_an_upload_does_not_take_the_place_of_a_file(client, server):
    """What somebody uploads under the names that a project uses changes nothing for it."""
    dataset = client.post("/api/v1/datasets", json={"name": "a stranger's"}).json()["id"]
    client.put(f"/api/v1/datasets/{dataset}/files", files={"file": ("orders.jsonl", b'{"messages": []}\n')})
    config = GOOD.replace("max_steps: 2", "max_steps: 99")
    client.put(f"/api/v1/datasets/{dataset}/train-config", files={"file": ("orders.yaml", config)}).raise_for_status()
    make(client, "steady")
    run = client.post("/api/projects/steady/runs").raise_for_status().json()
    assert "max_steps: 2" in (server.state_dir / "runs" / run["id"] / "config.yaml").read_text()
    assert "/training/datasets/" in wait_for_run(client, run["id"])["dataset"]["path"]


def test_a_kill_loses_nothing(tmp_path):
    """Killed while a run of a project is under way: project, run, files and tags are there, and the run goes on."""
    write_training_folder(tmp_path)
    recipes = write_recipes(tmp_path / "recipes")
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        with server.client() as client:
            made = make(client, "kept", training_yaml_name="waits.yaml", tags=["a"])
            client.patch("/api/projects/kept", json={"description": "changed"})
            run = client.post("/api/projects/kept/runs").raise_for_status().json()
            base = f"/api/projects/kept/runs/{run['id']}"
            for page in polled(lambda: client.get(f"{base}/artifacts").json()["artifacts"]):
                if page and page[0]["bytes"] == len("early"):
                    break
            wait_for_run(client, run["id"], lambda run: run["status"] == "running")
            tagged = client.post(f"{base}/artifacts/{page[0]['artifact_id']}/tags", json={"tags": ["best", "最好"]})
            assert tagged.json()["tags"] == ["best", "最好"]
        server.kill9()
        server.up()
        with server.client() as client:
            again = client.get("/api/projects/kept").json()
            assert (again["id"], again["description"], again["tags"]) == (made["id"], "changed", ["a"])
            assert client.get(f"{base}/artifacts").json()["artifacts"] == [tagged.json()]
            assert client.get(base).json()["status"] == "running"
            problem(client.post("/api/projects", json={**REQUEST, "name": "kept"}), 409)
            (server.state_dir / "runs" / run["id"] / "go").touch()
            assert wait(client, "kept", run["id"])["status"] == "succeeded"
            assert client.get(base).json()["artifacts"][0]["tags"] == ["best", "最好"]
