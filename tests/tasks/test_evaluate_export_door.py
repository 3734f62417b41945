"""POST /api/export/onnx and /api/eval/evaluate answer with the result of a run, which nothing but its own end can end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from task_parts import FAILS, config_of, script, write_home

from support.server import ServerProcess, polled, wait_for_run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_home(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[ServerProcess]:
    with ServerProcess.start(home / "state", home / "recipes", {"TUNESMITH_MAX_CPU_RUNS": "4"}) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def held(home: Path) -> Iterator[Path]:
    """While this file is there, exports do not end."""
    hold = home / "recipes/export-onnx/hold"
    hold.touch()
    yield hold
    hold.unlink(missing_ok=True)


def export(home: Path, output: str, **fields: Any) -> dict[str, Any]:
    """As the original's clients ask for it."""
    path = str(home / "exports" / output)
    return {"model_path": str(home / "model"), "output_path": path, "export_format": "onnx", **fields}


def test_an_export_into_a_folder(client, home):
    """Answered when the files are there: the file's own opset, its bytes and how exact it is."""
    answer = client.post("/api/export/onnx", json=export(home, "folder", opset_version=14))
    assert answer.status_code == 200, answer.text
    told = answer.json()
    run_id = told.pop("run_id")
    assert told == {
        "status": "succeeded",
        "output_path": str(home / "exports/folder"),
        "opset_version": 18,
        "bytes": 5,
        "max_abs_diff": 0.00002,
        "greedy_agreement": 1.0,
    }
    assert sorted(path.name for path in Path(told["output_path"]).iterdir()) == [
        "config.yaml",
        "model.onnx",
        "tokenizer.json",
    ]
    config = config_of(home, run_id)
    assert config["model"]["base"] == str(home / "model")
    assert (config["export"]["opset"], config["export"]["single_file"]) == (14, False)
    assert client.get(f"/v1/runs/{run_id}").json()["kind"] == "export"


def test_an_export_into_a_file(client, home):
    """A name that ends in .onnx is that file alone, with the weights in it."""
    told = client.post("/api/export/onnx", json=export(home, "sub/orders.onnx")).raise_for_status().json()
    assert Path(told["output_path"]).read_text() == "graph"
    assert [path.name for path in (home / "exports/sub").iterdir()] == ["orders.onnx"]
    assert config_of(home, told["run_id"])["export"]["single_file"] is True
    again = client.post("/api/export/onnx", json=export(home, "sub/orders.onnx"))
    assert (again.status_code, again.json()["where"]) == (409, "output_path")


@pytest.mark.parametrize(
    ("change", "status", "where"),
    [
        ({"opset_version": 3}, 422, "opset_version"),
        ({"opset_version": 99}, 422, "opset_version"),
        ({"output_path": "/etc/onnx"}, 403, "output_path"),
        ({"output_path": "/etc/model.onnx"}, 403, "output_path"),
        ({"output_path": "exports/nul\0.onnx"}, 400, "output_path"),
        ({"output_path": "exports/" + 300 * "x" + ".onnx"}, 400, "output_path"),
        ({"output_path": "rows.jsonl/model.onnx"}, 422, "output_path"),
        ({"model_path": "./no-such-model"}, 400, "model_path"),
        ({"model_path": "/etc"}, 403, "model_path"),
        ({"export_format": "gguf"}, 422, "export_format"),
        ({"export_fromat": "onnx"}, 422, "export_fromat"),
    ],
)
def test_what_is_wrong_is_named_by_the_field_of_the_request(client, home, change, status, where):
    answer = client.post("/api/export/onnx", json=export(home, "never") | change)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert where in [problem.get("where"), *(fault["where"] for fault in problem.get("errors", []))]
    assert not (home / "exports/never").exists()


def test_who_does_not_want_to_wait_is_answered_at_once(client, home, held):
    """202 with the run, by its key the same run, and its end by the same key."""
    body, key = export(home, "later"), {"Idempotency-Key": "later"}
    answer = client.post("/api/export/onnx", json=body, headers={**key, "Prefer": "respond-async"})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    told = answer.json()
    assert (told["opset_version"], told["bytes"], told["output_path"]) == (None, None, body["output_path"])
    short = client.post("/api/export/onnx", json=body, headers={**key, "Prefer": "respond-async, wait=0"})
    assert (short.status_code, short.json()["run_id"]) == (202, told["run_id"])
    held.unlink()
    over = client.post("/api/export/onnx", json=body, headers=key)
    assert (over.status_code, over.json()["run_id"], over.json()["bytes"]) == (200, told["run_id"], 5)


def test_a_client_that_leaves_ends_nothing(server, home, held):
    """The run goes on and its files are put where they were asked for."""
    body = export(home, "left")
    with server.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/api/export/onnx", json=body, timeout=2)
        newest = client.get("/v1/runs", params={"limit": 1}).json()["runs"][0]
        assert newest["recipe"] == "export-onnx"
        held.unlink()
        assert wait_for_run(client, newest["run_id"])["status"] == "succeeded"
    place = Path(body["output_path"])
    assert any(place.exists() for _ in polled(place.exists) if place.exists())


def test_a_run_that_fails_is_answered_with_its_own_error(client, home):
    """Its text, place and mend; nothing is left at the output path."""
    run_sh = home / "recipes/export-onnx/run.sh"
    good = run_sh.read_text()
    run_sh.write_text(script(FAILS))
    try:
        answer = client.post("/api/export/onnx", json=export(home, "failed"))
    finally:
        run_sh.write_text(good)
    problem = answer.json()
    assert answer.status_code == 422
    assert problem["detail"].endswith("failed: out of cheese")
    assert (problem["where"], problem["mend"]) == ("cheese", "buy some")
    assert not (home / "exports/failed").exists()


def test_a_run_that_is_cancelled_meanwhile(server, home, held):
    """Whoever waits for it is told."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        with server.client() as client:
            answers.append(client.post("/api/export/onnx", json=export(home, "cancelled")))

    waiting = threading.Thread(target=ask)
    waiting.start()
    with server.client() as client:
        wanted = str(home / "exports/cancelled")
        for runs in polled(lambda: client.get("/v1/runs", params={"state": "running"}).json()["runs"]):
            if runs and runs[0]["recipe"] == "export-onnx":
                break
        assert client.post("/api/export/onnx", json=export(home, "cancelled")).status_code == 409, wanted
        client.post(f"/v1/runs/{runs[0]['run_id']}/cancel").raise_for_status()
    waiting.join(60)
    assert answers[0].status_code == 409
    assert "cancelled" in answers[0].json()["detail"]


def test_a_server_that_stops_keeps_nobody_waiting(tmp_path):
    """Who waits is answered that the run goes on; the next server finishes it."""
    home = write_home(tmp_path / "home")
    hold = home / "recipes/export-onnx/hold"
    hold.touch()
    answers: list[httpx.Response] = []
    with ServerProcess.start(home / "state", home / "recipes") as server:

        def ask() -> None:
            with server.client() as client:
                answers.append(client.post("/api/export/onnx", json=export(home, "stopped")))

        waiting = threading.Thread(target=ask)
        waiting.start()
        with server.client() as client:
            for runs in polled(lambda: client.get("/v1/runs", params={"state": "running"}).json()["runs"]):
                if runs:
                    break
        assert server.stop() == 0
        waiting.join(60)
        assert answers[0].status_code == 202
        hold.unlink()
        server.up()
        with server.client() as client:
            assert wait_for_run(client, answers[0].json()["run_id"])["status"] == "succeeded"
        place = home / "exports/stopped/model.onnx"
        assert any(polled(place.exists))


def test_an_evaluation(client, home):
    """Scores, counts and the report; a folder is its test file; the request's fields reach the recipe."""
    folder = home / "split"
    folder.mkdir()
    for name in ("train.jsonl", "test.jsonl"):
        (folder / name).write_text((home / "rows.jsonl").read_text())
    body = {
        "model_path": str(home / "model"),
        "dataset_path": str(folder),
        "metrics": ["loss", "exact_match"],
        "batch_size": 4,
    }
    answer = client.post("/api/eval/evaluate", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["metrics"], told["counts"]) == ({"loss": 0.5, "exact_match": 1.0}, {"rows": 1})
    assert told["report_path"] == str(home / "state/runs" / told["run_id"] / "output/report.json")
    config = config_of(home, told["run_id"])
    assert config["data"]["train_file"] == str(folder / "test.jsonl")
    assert (config["evaluation"]["metrics"], config["evaluation"]["batch_size"]) == (["loss", "exact_match"], 4)
    later = client.post("/api/eval/evaluate", json=body, headers={"Prefer": "respond-async"})
    assert (later.status_code, later.json()["metrics"]) == (202, {})
    for change, status, where in (
        ({"batch_size": 0}, 422, "batch_size"),
        ({"dataset_path": "nowhere"}, 400, "dataset_path"),
        ({"model_path": "./nowhere"}, 400, "model_path"),
        ({"metrics": [1]}, 422, "metrics[0]"),
    ):
        problem = client.post("/api/eval/evaluate", json=body | change)
        assert problem.status_code == status
        assert where in [problem.json().get("where"), *(fault["where"] for fault in problem.json().get("errors", []))]
