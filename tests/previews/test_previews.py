"""Previews over HTTP: what is shown, what is refused in which words, and what is kept."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from preview_parts import (
    END,
    ROWS,
    TEMPLATE,
    chat,
    dataset_of,
    lines,
    wait_until_gone,
    workers_of,
    write_model,
)

from support.commands import Cli
from support.server import ServerProcess, polled

LONG = chat("why?", "because " * 200)


@pytest.fixture(scope="module")
def dataset(client: httpx.Client) -> str:
    return dataset_of(client, "colours", lines(ROWS))


def kept(server: ServerProcess) -> set[str]:
    return {path.name for path in (server.state_dir / "previews").glob("*")}


def test_a_preview_shows_what_is_trained_and_is_kept_while_nothing_changes(dataset, client, preview, server, place):
    """The first rows token by token, all rows in numbers; asked again, by name and by alias, the same answer at once."""
    answer = preview(dataset, limit=2)
    assert answer.status_code == 200, answer.text
    first = answer.json()
    assert (first["cached"], first["complete"], first["recipe"]) == (False, True, "lora")
    row = first["rows"][0]
    assert row["where"].endswith("data.jsonl:1")
    assert "".join(row["pieces"]) == row["text"] == "".join(segment["text"] for segment in row["segments"])
    assert [one["text"] for one in row["segments"] if one["trained"]] == [f"绿色。{END}"]
    assert len(row["token_ids"]) == len(row["mask"]) == len(row["pieces"]) == row["length"]
    assert sum(row["mask"]) == row["trained_tokens"]
    assert first["rows"][1]["segments"][1]["text"] == f"blue 🌊{END}"
    assert (len(first["rows"]), first["train"]["rows"], first["train"]["rows_read"]) == (2, 40, 40)
    assert sum(one["count"] for one in first["train"]["lengths"]["histogram"]) == 40
    assert first["template"]["source"] == "model"
    assert first["settings"]["max_length"] == 256
    assert "longest text that the model can read" in first["warnings"][0]
    again = preview("colours", base="/v1/datasets", limit=2).json()
    assert again == {**first, "cached": True}
    (place / "model" / "added_tokens.json").write_text("{}")
    assert preview(dataset, limit=2).json()["cached"] is False, "the model's tokenizer files are not what they were"


def test_what_was_kept_of_a_dataset_goes_with_it(client, preview, server):
    """Text of deleted rows must not stay behind."""
    mine = dataset_of(client, "to be deleted", lines(ROWS[:5]))
    before = kept(server)
    assert preview(mine, limit=1).status_code == 200
    [new] = kept(server) - before
    assert (server.state_dir / "previews" / new).stat().st_mode & 0o777 == 0o600
    assert client.delete(f"/api/v1/datasets/{mine}").status_code == 200
    assert new not in kept(server)
    assert kept(server) == before


def test_the_datasets_config_and_the_requests_overrides_apply_as_for_a_run(client, preview):
    """Long rows are cut by the one, seeds and lengths come from the other; each cut row says so."""
    mine = dataset_of(client, "with a config", lines([LONG, *ROWS[:9]]))
    config = b"job: {type: lora}\ndata: {max_length: 64}\nevaluation: {holdout_share: 0.2}\n"
    client.put(f"/api/v1/datasets/{mine}/train-config", files={"file": ("c.yaml", config)}).raise_for_status()
    answer = preview(mine, hyperparams={"holdout_share": 0.0}, limit=1).json()
    assert f"train config of dataset {mine}" in answer["warnings"][0]
    assert (answer["settings"]["max_length"], answer["validation"]) == (64, None)
    [row] = answer["rows"]
    assert (row["cut"], row["dropped"], row["length_kept"], len(row["mask"])) == (True, False, 64, 64)
    assert row["length"] > 64
    assert row["not_shown"].startswith("because") or "because" in row["not_shown"]
    assert (answer["train"]["cut"], answer["train"]["lengths"]["max"]) == (1, row["length"])


def test_of_a_large_file_the_first_rows_are_looked_at_and_that_is_said(client, preview):
    """There is no hash of the first batches then: their order depends on all rows."""
    mine = dataset_of(client, "large", lines(ROWS))
    answer = preview(mine, max_rows=10, limit=50).json()
    assert (answer["complete"], answer["train"]["rows_read"], len(answer["rows"])) == (False, 10, 10)
    assert answer["first_batches_sha256"] is None
    assert any("a training reads all" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "no-such-model"}, 400, "there is no model 'no-such-model'"),
        ({"model": None}, 400, "no model is named"),
        ({"recipe": "no-such-recipe"}, 400, "no-such-recipe"),
        ({"recipe": None}, 422, "no recipe is named"),
        ({"recipe": "nothing"}, 422, "needs no data"),
        ({"recipe": "evaluate"}, 422, "trains nothing"),
        ({"recipe": "foreign"}, 422, "in its own way"),
        ({"limit": 0}, 422, "at least 1"),
        ({"limit": 10**9}, 422, "at most 50"),
        ({"max_rows": 0}, 422, "at least 1"),
        ({"seed": -1}, 422, "must lie between"),
        ({"hyperparams": {"learning_rte": 1}}, 422, "learning_rte"),
        ({"hyperparams": {"data.chat_template": "/etc/passwd"}}, 403, "outside the allowed roots"),
        ({"hyperparams": {"data.test_file": "/etc/passwd"}}, 403, "outside the allowed roots"),
        ({"train_config": "/etc/passwd"}, 403, "outside the allowed roots"),
        ({"unknown": 1}, 422, "unknown"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_request_is_refused_before_anything_is_started(dataset, preview, body, status, words):
    """With what is wrong, as a run would say it."""
    answer = preview(dataset, **body)
    assert answer.status_code == status, answer.text
    assert words in answer.text


def test_a_dataset_or_split_that_is_not_there(client, preview):
    """404 for the dataset, and 400 listing the files for the split."""
    assert preview("ds_nothing").status_code == 404
    mine = dataset_of(client, "two files", lines(ROWS[:3]), "train.jsonl")
    client.put(f"/api/v1/datasets/{mine}/files", files={"file": ("test.jsonl", lines(ROWS[:3]))}).raise_for_status()
    answer = preview(mine, split="dev")
    assert answer.status_code == 400
    assert "test.jsonl" in answer.text


@pytest.mark.parametrize(
    ("rows", "body", "words"),
    [
        (
            lines([*ROWS[:2], {"messages": []}]) + b"{oops\n",
            {},
            ["2 rows cannot be used", "train.jsonl:3", "train.jsonl:4"],
        ),
        (lines([chat("a", "b", weight=0)]), {}, ["train.jsonl:1", "there is nothing to learn from it"]),
        (lines([{"prompt": "", "completion": "once upon a time"}]), {}, ["so the prompts are missing"]),
        (lines(ROWS[:3]), {"model": "mute"}, ["no chat template"]),
        (lines(ROWS[:3]), {"hyperparams": {"data.chat_template": "endless.jinja"}}, ["no end token"]),
    ],
    ids=["broken rows", "nothing trained", "everything trained", "no template", "no end token"],
)
def test_what_a_training_refuses_a_preview_refuses_in_the_same_words(client, preview, place, rows, body, words):
    """Before a GPU is waited for."""
    (place / "endless.jinja").write_text(TEMPLATE.replace(END, ""))
    named = {name: str(place / value) if name == "model" else value for name, value in body.items()}
    answer = preview(dataset_of(client, f"bad: {words}", rows), **named)
    assert answer.status_code == 422, answer.text
    said = answer.json()
    assert all(word in said["detail"] for word in words), said
    assert said["mend"]


def test_without_the_packages_the_answer_says_what_to_install(tmp_path: Path):
    """A control plane alone has no torch; that is no fault of the request."""
    (tmp_path / "hidden" / "torch").mkdir(parents=True)
    (tmp_path / "hidden" / "torch" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"
    )
    shutil.copytree(Path(__file__).parents[2] / "recipes" / "lora", tmp_path / "recipes" / "lora")
    write_model(tmp_path / "model")
    environment = {"PYTHONPATH": str(tmp_path / "hidden")}
    with (
        ServerProcess.start(tmp_path / "state", tmp_path / "recipes", environment) as server,
        server.client() as client,
    ):
        mine = dataset_of(client, "x", lines(ROWS[:3]))
        body = {"model": str(tmp_path / "model"), "recipe": "lora"}
        answer = client.post(f"/api/v1/datasets/{mine}/preview", json=body)
        assert answer.status_code == 500
        assert "needs the package torch" in answer.json()["detail"]
        assert answer.json()["mend"] == "pip install 'tunesmith[train]'"


def test_a_killed_server_leaves_no_preview_behind(tmp_path: Path):
    """The worker watches its input, and that closes with the server."""
    shutil.copytree(Path(__file__).parents[2] / "recipes" / "lora", tmp_path / "recipes" / "lora")
    write_model(tmp_path / "model")
    server = ServerProcess.start(tmp_path / "state", tmp_path / "recipes")
    with server.client() as client, ThreadPoolExecutor(1) as threads:
        mine = dataset_of(client, "much", lines(ROWS) * 2500)
        body = {"model": str(tmp_path / "model"), "recipe": "lora", "max_rows": 100_000}
        asked = threads.submit(client.post, f"/api/v1/datasets/{mine}/preview", json=body)
        [worker] = next(found for found in polled(lambda: list(workers_of(server.pid))) if found)
        server.kill9()  # it has hardly begun
        assert isinstance(asked.exception(), httpx.TransportError)
        assert wait_until_gone(worker)


def test_the_command_line_sets_apart_what_is_trained(client, server, place, tmp_path: Path):
    """By marks where there are no colours; numbers and a histogram below; JSON for scripts."""
    dataset_of(client, "for/people", lines([*ROWS[:3], chat("escape \x1b[31m", "red")]))
    ask = Cli(tmp_path, {"TUNESMITH_URL": server.url})
    words = ("datasets", "preview", "for/people", "--model", str(place / "model"), "--recipe", "lora", "--limit", "4")
    shown = ask(*words, "--set", "max_length=128")
    assert shown.returncode == 0, shown.stderr
    assert f"⟦绿色。{END}⟧" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "escape \\x1b[31m" in shown.stdout
    assert "4 of 4 read" in shown.stdout
    assert "█" in shown.stdout
    told = ask(*words, "--set", "max_length=128", "--json").stdout
    assert '"cached": true' in told
    refused = ask(*words[:-2], "--set", "max_lenth=1")
    assert refused.returncode == 1
    assert "max_length" in refused.stderr
