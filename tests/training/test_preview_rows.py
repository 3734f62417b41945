"""A preview and a training see the same: compared by the hash of their first batches, over HTTP and in the data loader."""

from __future__ import annotations

import json
import re

import httpx
import msgspec
import pytest
from adapter_parts import make_adapter
from openai_parts import TEMPLATES, WEATHER
from training_parts import COLOURS, RECIPES, chat, config_and_folders
from transformers import LlamaForCausalLM, TrainingArguments

from support.server import ServerProcess, wait_for_run
from support.tiny_model import CHATML
from tunesmith_workers.examples.batches import sha256_of
from tunesmith_workers.examples.inputs import prepare_inputs
from tunesmith_workers.examples.preview import preview
from tunesmith_workers.objectives.token_cross_entropy import TokenCrossEntropy
from tunesmith_workers.objectives.trained_logits import TrainedLogits
from tunesmith_workers.process.config import TrainConfig, read_config
from tunesmith_workers.process.stopping import StopRequest
from tunesmith_workers.training.acceleration import Plain
from tunesmith_workers.training.checkpoints import origin_of
from tunesmith_workers.training.trainer import FineTuner

MIXED = [
    *COLOURS,
    *(chat("q" + f" {number}" * (number % 9), "so " * (number % 5) + "it is") for number in range(40)),
    {"prompt": "the sea is", "completion": " wide"},
]


@pytest.fixture
def seen(write_rows, write_config):
    """What a look at these rows answers."""

    def seen(rows, limit=3, most_rows=1000, **sections):
        path = write_config(write_rows(rows), **sections)
        config = read_config(TrainConfig, path, RECIPES / "lora" / "recipe.yaml")
        return preview(msgspec.to_builtins(config), limit=limit, most_rows=most_rows)

    return seen


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_model):
    place = tmp_path_factory.mktemp("parity")
    roots = {"TUNESMITH_ALLOWED_ROOTS": f"{place}:{tiny_model}", "OMP_NUM_THREADS": "1"}
    with ServerProcess.start(place / "state", RECIPES, roots) as server:
        yield server


@pytest.mark.filterwarnings("default")  # what the libraries say to each other is no promise of ours
def test_rows_are_shown_as_an_adapter_has_them_rendered(seen, tiny_model, tokenizer, tmp_path):
    """Its own chat template, though it says nothing of how long a text its base can read."""
    adapter = make_adapter(tiny_model, tokenizer, tmp_path / "adapter")
    template = adapter / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_start|>~"))
    of_base, of_adapter = (seen(COLOURS, model={"base": str(model)}) for model in (tiny_model, adapter))
    assert of_adapter["first_batches_sha256"] != of_base["first_batches_sha256"]
    assert "<|im_start|>~" in of_adapter["rows"][0]["text"]
    assert of_adapter["settings"]["max_length"] == of_base["settings"]["max_length"]


@pytest.mark.training
def test_a_preview_answers_the_hash_that_the_trainings_tell(server, tiny_model):
    """For sft and lora, with the same request; another seed is another order."""
    hyperparams = {"max_steps": 1, "preflight": False, "max_length": 48, "holdout_share": 0.1}
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
        dataset = client.post("/api/v1/datasets", json={"name": "mixed"}).json()["id"]
        content = "".join(json.dumps(row) + "\n" for row in MIXED)
        client.put(f"/api/v1/datasets/{dataset}/files", files={"file": ("a.jsonl", content)}).raise_for_status()
        experiment = client.post("/v1/experiments", json={"name": "x", "task_type": "sft"}).json()["id"]
        found = []
        for recipe, seed in (("sft", 42), ("lora", 7)):
            same = {"recipe": recipe, "model": str(tiny_model), "hyperparams": hyperparams, "seed": seed}
            preview = client.post(f"/api/v1/datasets/{dataset}/preview", json=same)
            assert preview.status_code == 200, preview.text
            run = client.post(f"/v1/experiments/{experiment}/runs", json={**same, "dataset": {"name": dataset}})
            assert run.status_code == 201, run.text
            run_id = run.json()["run_id"]
            assert wait_for_run(client, run_id)["status"] == "succeeded"
            log = (server.state_dir / "runs" / run_id / "run.log").read_text()
            [told] = re.findall(r'"first_batches_sha256":"(\w{64})"', log)
            assert preview.json()["first_batches_sha256"] == told
            train = preview.json()["train"]
            assert f"training: {train['rows']} rows, {train['tokens']} tokens" in log
            assert f"{train['cut']} cut to 48 tokens, {train['dropped']} dropped" in log
            found.append(told)
    assert found[0] != found[1]


def test_the_hash_is_of_what_the_data_loader_gives(write_rows, write_config, tiny_model, tmp_path):
    """Not of what it is believed to give."""
    config, _ = config_and_folders(write_config(write_rows(MIXED), training={"per_device_train_batch_size": 5}))
    ready = prepare_inputs(config)
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    trainer = FineTuner(
        model,
        TrainingArguments(
            str(tmp_path / "out"), per_device_train_batch_size=5, seed=42, use_cpu=True, remove_unused_columns=False
        ),
        objective=TokenCrossEntropy(),
        logits=TrainedLogits(model, ready.tokenizer.pad_token_id),
        inputs=ready,
        origin=origin_of(base=config.base, tokenizer=ready.tokenizer, data=config.train_file, config={}),
        stop=StopRequest(),
        acceleration=Plain(),
        callbacks=[],
    )
    assert trainer.first_batches_sha256() == sha256_of(trainer.get_train_dataloader())


@pytest.mark.parametrize(
    "answer", ["ja", "是的。", "🙂🙃 und 👩‍👩‍👧", "a\n\n  b\t", "e\u0301 ≠ é", "<|im_start|>"], ids=ascii
)
def test_the_pieces_make_up_the_text(seen, answer):
    """Whatever characters the tokens cut through; the trained part is the answer and its end."""
    [row] = seen([chat("ok? 好", answer)])["rows"]
    assert (
        "".join(row["pieces"])
        == row["text"]
        == f"<|im_start|>user\nok? 好<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
    )
    assert [one["text"] for one in row["segments"] if one["trained"]] == [f"{answer}<|im_end|>"]


def test_what_the_tokenizer_adds_is_shown(seen):
    """Plain text gets an end token, and that is trained."""
    [row] = seen([{"prompt": "the sky is", "completion": " blue"}])["rows"]
    assert row["text"] == "the sky is blue<|endoftext|>"
    assert row["segments"][-1] == {"text": " blue<|endoftext|>", "trained": True, "tokens": row["trained_tokens"]}


def test_the_first_token_counts_as_not_trained(seen):
    """Nothing predicts it."""
    answer = seen([chat("a", "b")], data={"train_on": "all"})
    assert answer["rows"][0]["mask"] == [False] + [True] * (answer["rows"][0]["length"] - 1)
    assert answer["train"]["share_trained"] == answer["rows"][0]["share_trained"] == 1.0


def test_rows_are_cut_and_dropped_as_in_training(seen):
    """A cut answer keeps its beginning; a question that fills the row is dropped, and shown all the same."""
    answer = seen([chat("a", "word " * 100), chat("word " * 100, "b"), chat("a", "b")], data={"max_length": 64})
    cut, dropped, whole = answer["rows"]
    assert (cut["cut"], cut["dropped"], cut["length_kept"]) == (True, False, 64)
    assert (
        cut["text"] + cut["not_shown"]
        == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n" + "word " * 100 + "<|im_end|>\n"
    )
    assert (dropped["cut"], dropped["dropped"], dropped["length_kept"]) == (False, True, 0)
    assert (whole["cut"], whole["dropped"], whole["not_shown"]) == (False, False, "")
    train = answer["train"]
    assert (train["rows_read"], train["rows"], train["cut"], train["dropped"]) == (3, 2, 1, 1)
    assert train["lengths"]["count"] == 3


def test_an_answer_of_weight_zero_is_shown_as_not_trained(seen):
    """The mask is off where OpenAI's files say so, and on in the other answers of the row."""
    first, second = chat("a", "no")["messages"], chat("b", "yes")["messages"]
    [row] = seen([{"messages": [first[0], {**first[1], "weight": 0}, second[0], {**second[1], "weight": 1}]}])["rows"]
    assert [part["text"] for part in row["segments"] if part["trained"]] == ["yes<|im_end|>"]


def test_tools_that_the_template_leaves_out_are_a_warning(seen, tmp_path):
    """The model would not see them; a template that shows them is silent."""
    row = {**chat("a", "b"), "tools": [WEATHER]}
    shows = tmp_path / "shows.jinja"
    shows.write_text(TEMPLATES["qwen2.5"])
    hidden = "1 training conversations have tools"
    assert any(hidden in warning for warning in seen([row, chat("a", "b")])["warnings"])
    assert not any(hidden in warning for warning in seen([row], data={"chat_template": str(shows)})["warnings"])


def test_conversations_that_become_several_rows_are_counted(seen, tmp_path):
    """A template that rewrites earlier turns, such as one that hides earlier thoughts."""
    forgetful = tmp_path / "forgetful.jinja"
    forgetful.write_text(
        CHATML.replace(
            "message['content']", "(message['content'] if loop.last or message['role'] == 'user' else '...')"
        )
    )
    rows = [{"messages": chat("a", "first")["messages"] + chat("b", "second")["messages"]}]
    answer = seen(rows, data={"chat_template": str(forgetful)})
    assert (answer["train"]["rows_read"], answer["train"]["rows"], answer["train"]["split_conversations"]) == (1, 2, 1)
    assert answer["template"]["source"] == "file"
    assert [row["where"].rpartition(":")[2] for row in answer["rows"]] == ["1", "1"]
