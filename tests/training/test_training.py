"""Whole trainings of the tiny model, in this process where that is enough and through run.sh where it matters."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
import torch
import transformers
from training_parts import (
    COLOURS,
    RECIPES,
    Told,
    chat,
    config_and_folders,
    environment,
    manifest_of,
    run_recipe,
)

from support.tiny_model import CHATML
from tunesmith_workers.evaluation.scoring import evaluate
from tunesmith_workers.evaluation.token_scores import score_tokens, token_metrics
from tunesmith_workers.examples.rendering import Renderer
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.models.structure import attention_of
from tunesmith_workers.objectives.token_cross_entropy import TokenCrossEntropy
from tunesmith_workers.process.config import EvaluateConfig, Folders, Lora, read_config
from tunesmith_workers.process.faults import BadConfig, Diverged, ModelUnavailable, WorkerFault
from tunesmith_workers.process.stopping import StopRequest
from tunesmith_workers.programs.training import Started, run
from tunesmith_workers.training.checkpoints import is_complete
from tunesmith_workers.weights.full import FullWeights
from tunesmith_workers.weights.inference import load_for_inference
from tunesmith_workers.weights.lora import LoraWeights
from tunesmith_workers.weights.target_modules import refuse_absent_modules

pytestmark = [
    pytest.mark.training,
    # What the libraries say to each other in a training is quieted in a worker, and no promise of ours.
    pytest.mark.filterwarnings("default"),
]

METHODS = {"lora": LoraWeights, "sft": FullWeights}


@pytest.fixture
def train_here(write_rows, write_config, capfdbinary):
    """Train in this process; what was told and the run's folder are returned."""

    def train_here(recipe="lora", rows=COLOURS, resume_from=None, **sections):
        path = write_config(write_rows(rows), **sections)
        config, folders = config_and_folders(path, recipe)
        folders = msgspec.structs.replace(folders, resume_from=resume_from)
        run(METHODS[recipe](), TokenCrossEntropy(), Started(config, folders, StopRequest()))
        return Told(capfdbinary.readouterr().out), path.parent

    return train_here


def score(model: Path, rows: Path, capfdbinary, **scoring) -> dict[str, float]:
    path = rows.parent / "evaluate.yaml"
    path.write_bytes(
        msgspec.yaml.encode(
            {
                "model": {"base": str(model)},
                "data": {"train_file": str(rows)},
                "evaluation": {"max_new_tokens": 16, **scoring},
            }
        )
    )
    config = read_config(EvaluateConfig, path, RECIPES / "evaluate" / "recipe.yaml")
    evaluate(config, Folders(run=rows.parent, output=rows.parent / "scores", resume_from=None))
    [result] = Told(capfdbinary.readouterr().out).of("result")
    return result["metrics"]


def test_lora_through_run_sh(write_rows, write_config):
    """The recipe as the service starts it: it learns, reports, validates, and leaves a complete adapter."""
    config = write_config(
        write_rows(COLOURS),
        training={"max_steps": 60},
        evaluation={"strategy": "steps", "steps": 20, "holdout_share": 0.1},
        checkpoint={"save_steps": 10, "save_total_limit": 2},
    )
    code, told = run_recipe("lora", config)
    assert code == 0, told.text
    run = config.parent

    assert told.losses[0] == pytest.approx(math.log(320), abs=1.0), "an untrained model guesses"
    assert told.losses[-1] < 1.2, "and then it has learned"
    last = told.of("metrics")[-1]
    assert {"step", "total_steps", "epoch"} <= last.keys()
    logged = [fields for fields in told.of("metrics") if "loss" in fields]
    assert [fields["step"] for fields in logged] == list(range(1, 61))
    expected = {
        "learning_rate",
        "grad_norm",
        "tokens_per_second",
        "samples_per_second",
        "trained_tokens",
        "token_accuracy",
    }
    assert expected <= logged[-1].keys()
    assert [fields["step"] for fields in told.of("metrics") if "eval_loss" in fields] == [20, 40, 60]
    phases = [fields["phase"] for fields in told.of("progress")]
    assert list(dict.fromkeys(phases)) == ["loading_model", "tokenizing", "training", "preflight", "saving"]

    saved = [Path(fields["path"]) for fields in told.of("checkpoint")]
    assert [path.name for path in saved] == [f"checkpoint-{step}" for step in range(10, 61, 10)]
    kept = sorted((run / "checkpoints").iterdir())
    assert kept == saved[-2:], "save_total_limit"
    for folder in [*kept, run / "output"]:
        assert is_complete(folder)
        assert (folder / "adapter_model.safetensors").is_file()
        assert transformers.AutoTokenizer.from_pretrained(folder).chat_template == CHATML
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= {
        p.name for p in kept[-1].iterdir()
    }

    manifest = manifest_of(run / "output")
    assert manifest["kind"] == "adapter"
    assert manifest["step"] == 60
    assert manifest["metrics"]["eval_loss"] > 0
    origin = manifest["origin"]
    assert Path(origin["base_model"]).is_dir()
    assert all(len(origin[name]) == 64 for name in ("template_sha256", "tokenizer_sha256", "data_sha256"))
    assert origin["config"]["training"]["max_steps"] == 60
    assert origin["config"]["lora"]["r"] == 16, "what the recipe decided is recorded, too"
    assert {"torch", "transformers", "peft", "tunesmith"} <= manifest["versions"].keys()
    generation = transformers.GenerationConfig.from_pretrained(run / "output")
    assert generation.eos_token_id[0] == transformers.AutoTokenizer.from_pretrained(
        run / "output"
    ).convert_tokens_to_ids("<|im_end|>"), "whoever serves it stops where it was taught to"

    [artifact], [result] = told.of("artifact"), told.of("result")
    assert artifact["kind"] == "adapter"
    assert Path(artifact["path"]).is_file()
    assert result["model"] == str(run / "output")
    assert result["metrics"]["loss"] == told.losses[-1]


def test_sft_learns_its_rows_by_heart(train_here, write_rows, capfdbinary):
    """All weights are trained, and the written model answers as it was taught: scored by the evaluate recipe's worker."""
    told, run = train_here("sft", training={"max_steps": 80, "learning_rate": 0.005})
    assert told.losses[-1] < 0.1
    model = transformers.AutoModelForCausalLM.from_pretrained(run / "output")
    assert model.dtype == torch.float32, "the dtype is that of the base"
    metrics = score(
        run / "output", write_rows(COLOURS[:8]), capfdbinary, metrics=["exact_match", "loss", "perplexity", "accuracy"]
    )
    assert metrics["exact_match"] == 1.0
    assert metrics["accuracy"] == 1.0
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    lines = (run.parent / "scores" / "predictions.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["predicted"] for line in lines[:2]] == ["green", "blue"]


def test_a_merged_adapter_is_the_same_model(train_here, write_rows, tmp_path, capfdbinary):
    """`lora.merge` writes a whole model that scores the rows as the adapter on its base does."""
    rows = write_rows(COLOURS[:8], "score.jsonl")
    exact = {"model": {"dtype": "float32"}}
    _, run = train_here("lora", **exact)
    apart = score(run / "output", rows, capfdbinary, metrics=["loss"])
    (run / "output").rename(tmp_path / "adapter")
    _, run = train_here("lora", lora={"merge": True}, **exact)
    assert not (run / "output" / "adapter_model.safetensors").exists()
    assert manifest_of(run / "output")["kind"] == "model"
    assert score(run / "output", rows, capfdbinary, metrics=["loss"])["loss"] == pytest.approx(apart["loss"], rel=0.02)


def test_the_same_seed_gives_the_same_run(train_here):
    """To the last digit, on the same machine."""
    first, _ = train_here(training={"max_steps": 4})
    second, _ = train_here(training={"max_steps": 4})
    other, _ = train_here(training={"max_steps": 4, "seed": 7})
    assert first.losses == second.losses
    assert first.losses != other.losses


def test_accumulated_batches_weigh_every_token_alike(train_here):
    """Two batches of four rows and one of eight give the same loss and the same gradient, whatever the lengths."""
    fixed = {"max_steps": 2, "group_by_length": False}
    whole, _ = train_here("sft", model={"dtype": "float32"}, training={**fixed, "per_device_train_batch_size": 8})
    parts, _ = train_here(
        "sft",
        model={"dtype": "float32"},
        training={**fixed, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    )
    for one, two in zip(whole.of("metrics"), parts.of("metrics"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-4)
        assert one["trained_tokens"] == two["trained_tokens"]


def test_gradient_checkpointing_only_saves_memory(train_here):
    """The losses stay the same."""
    plain, _ = train_here(training={"max_steps": 3}, model={"dtype": "float32"})
    saving, _ = train_here(training={"max_steps": 3, "gradient_checkpointing": True}, model={"dtype": "float32"})
    assert saving.losses == pytest.approx(plain.losses, rel=1e-4)


@pytest.mark.parametrize("recipe", ["lora", "sft"])
def test_a_checkpoint_can_be_continued(train_here, tmp_path, recipe):
    """Six steps in one go and three plus three after a restart give the same losses."""
    sections = {"training": {"max_steps": 6}, "checkpoint": {"save_steps": 3}}
    straight, run = train_here(recipe, **sections)
    kept = (run / "checkpoints" / "checkpoint-3").rename(tmp_path / "checkpoint-3")
    continued, _ = train_here(recipe, resume_from=kept, **sections)
    assert continued.losses == straight.losses[3:]


def weights_of(run: Path) -> bytes:
    return next((run / "output").glob("*.safetensors")).read_bytes()


@pytest.mark.parametrize("recipe", ["lora", "sft"])
def test_nothing_is_trained_after_the_last_step(train_here, write_rows, recipe):
    """Resumed from the checkpoint of the last step, in the middle of an epoch: the same model, metrics and test score."""
    test = write_rows([chat("the colour of lemons?", "yellow")], "test.jsonl")
    sections = {"training": {"max_steps": 6}, "data": {"test_file": str(test)}}
    straight, run = train_here(recipe, **sections)
    weights, metrics = weights_of(run), manifest_of(run / "output")["metrics"]
    checkpoint = run / "checkpoints" / "checkpoint-6"
    resumed, _ = train_here(recipe, resume_from=checkpoint, **sections)
    assert resumed.losses == []
    assert not resumed.said("preflight (")
    assert weights_of(run) == weights
    found = manifest_of(run / "output")
    assert found["step"] == 6
    expected = manifest_of(checkpoint)["metrics"]
    for name in ("test_loss", "test_token_accuracy", "trained_token_share"):
        expected[name] = metrics[name]
    assert found["metrics"] == pytest.approx(expected, rel=1e-6)
    assert expected["loss"] == straight.losses[-1]


def test_the_best_is_kept_when_only_saving_is_left(train_here, write_rows):
    """Early stopping's: resumed from the last step, it is again the best checkpoint that is written as the model."""
    contradiction = [chat(row["messages"][0]["content"], "mauve") for row in COLOURS[:8]]
    sections = {
        "training": {"max_steps": 30},
        "data": {"validation_file": str(write_rows(contradiction, "validation.jsonl"))},
        "evaluation": {"strategy": "steps", "steps": 6, "early_stopping_patience": 9},
    }
    told, run = train_here(**sections)
    best = min((fields["eval_loss"], fields["step"]) for fields in told.of("metrics") if "eval_loss" in fields)[1]
    assert best < 30
    weights = weights_of(run)
    train_here(resume_from=run / "checkpoints" / "checkpoint-30", **sections)
    assert weights_of(run) == weights
    assert weights == (run / "checkpoints" / f"checkpoint-{best}" / "adapter_model.safetensors").read_bytes()


def test_the_plain_path_has_the_same_losses(train_here):
    """`accelerate: off` pads rows and leaves layers to PEFT."""
    fast, _ = train_here(training={"max_steps": 4}, model={"dtype": "float32"})
    plain, _ = train_here(training={"max_steps": 4, "accelerate": "off"}, model={"dtype": "float32"})
    assert fast.said("packed batches")
    assert not plain.said("packed batches")
    assert "frozen weights" in fast.text
    assert "frozen weights" not in plain.text
    assert plain.losses == pytest.approx(fast.losses, abs=1e-4)


@pytest.mark.parametrize("recipe", ["lora", "sft"])
def test_rows_are_packed_in_the_precision_of_this_machine(recipe, train_here):
    """`dtype: auto`, which on a CPU with bfloat16 trains all weights under autocast."""
    told, _ = train_here(recipe, training={"max_steps": 1}, model={"dtype": "auto"})
    assert told.said("packed batches")


def test_eager_attention_is_used_only_where_it_is_compared(train_here, tiny_model):
    """It is faster for short rows in bfloat16; the plain path compares nothing, nor does who scores or answers."""
    compared, _ = train_here(model={"dtype": "bfloat16"}, training={"max_steps": 1})
    plain, _ = train_here(model={"dtype": "bfloat16"}, training={"max_steps": 1, "accelerate": "off"})
    assert compared.said("bfloat16, eager attention")
    assert plain.said("bfloat16, sdpa attention")
    assert attention_of(load_for_inference(str(tiny_model), "bfloat16", "auto")) == "sdpa"
    assert attention_of(load_for_inference(str(tiny_model), "bfloat16", "eager")) == "eager"


def test_accuracy_is_left_out_where_it_cannot_be_measured(tiny_model, tokenizer, write_rows, capfdbinary):
    """A model whose output layer cannot be found is scored by its own loss, which says nothing about its choices."""

    class Hidden(transformers.LlamaForCausalLM):
        def get_output_embeddings(self):
            return None

    rows = Renderer(tokenizer).render(read_rows(write_rows(COLOURS[:8])))
    places = {row.where: place for place, row in enumerate(rows)}

    def metrics(model):
        scores = score_tokens(model, rows, places, pad_token=0, batch_size=4)
        return {one.name: one.overall for one in token_metrics(("loss", "accuracy"), scores)}

    known = metrics(transformers.LlamaForCausalLM.from_pretrained(tiny_model))
    unknown = metrics(Hidden.from_pretrained(tiny_model))
    assert known.keys() - unknown.keys() == {"accuracy"}
    assert unknown["loss"] == pytest.approx(known["loss"], rel=1e-5)
    assert Told(capfdbinary.readouterr().out).said("accuracy is left out")


def test_early_stopping_keeps_the_best(train_here, write_rows):
    """When validation gets worse it stops, and the model that is left is the one that scored best."""
    contradiction = [chat(row["messages"][0]["content"], "mauve") for row in COLOURS[:8]]
    told, run = train_here(
        training={"max_steps": 60, "learning_rate": 0.003},
        data={"validation_file": str(write_rows(contradiction, "validation.jsonl"))},
        evaluation={"strategy": "steps", "steps": 2, "early_stopping_patience": 2},
    )
    scored = [(fields["eval_loss"], fields["step"]) for fields in told.of("metrics") if "eval_loss" in fields]
    best = min(scored)
    assert scored[-1][1] < 60
    assert scored[-1][1] == best[1] + 4
    checkpoint = run / "checkpoints" / f"checkpoint-{best[1]}"
    assert (run / "output" / "adapter_model.safetensors").read_bytes() == (
        checkpoint / "adapter_model.safetensors"
    ).read_bytes()


def test_early_stopping_without_validation_rows_is_refused(train_here):
    """There would be nothing to stop by."""
    with pytest.raises(BadConfig, match="needs validation rows"):
        train_here(evaluation={"early_stopping_patience": 2})


def test_divergence_stops_the_run(train_here):
    """A gradient that is no number ends it at once, before the weights are ruined, naming the step and the mend."""
    with pytest.raises(Diverged, match=r"at step \d+") as stopped:
        train_here("sft", training={"learning_rate": 1e30, "max_grad_norm": 0.0, "max_steps": 50})
    assert stopped.value.where == "training.learning_rate"


def test_a_length_beyond_the_model_is_lowered(train_here):
    """The tiny model reads 512 tokens; asking for more warns and goes on."""
    told, _ = train_here(data={"max_length": 4096}, training={"max_steps": 1})
    assert told.said("data.max_length is 512")


def test_layers_that_do_not_exist_are_refused(train_here):
    """The message names what was looked for."""
    with pytest.raises(BadConfig, match="nowhere_proj") as refused:
        train_here(lora={"target_modules": ["nowhere_proj"]})
    assert refused.value.where == "lora.target_modules"


def test_layers_of_another_model_family_are_refused_before_rows_are_read(write_config, tmp_path):
    """ChatGLM's `query_key_value` on a Llama: the error names the model's own layers, and nothing was read or loaded."""
    config = write_config(tmp_path / "never read.jsonl", lora={"target_modules": ["query_key_value"]})
    code, told = run_recipe("lora", config)
    assert code == 1
    assert told.error["where"] == "lora.target_modules"
    assert "LlamaForCausalLM) has no module named query_key_value" in told.error["text"]
    assert "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj" in told.error["text"]
    assert "[all-linear]" in told.error["mend"]


def test_layers_that_the_model_has_are_trained_and_the_others_are_named(tiny_model, capsys):
    """A list for several families is honoured as far as it goes."""
    lora = Lora(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=("query_key_value", "q_proj"), merge=False)
    refuse_absent_modules(lora, str(tiny_model))
    told = Told(capsys.readouterr().out.encode())
    (warning,) = told.of("message")
    assert warning["level"] == "warning"
    assert "no module named query_key_value; it is left out" in warning["text"]


@pytest.mark.parametrize("base", ["/no/such/folder", "./neither", "nobody-at-all/no-such-model-7f3a"])
def test_a_model_that_is_not_there_is_refused(train_here, base):
    """Whether the name is a path or the hub's, known there or not, and with or without a network."""
    with pytest.raises(ModelUnavailable) as refused:
        train_here(model={"base": base})
    assert refused.value.where == base
    assert refused.value.mend


def test_a_fatal_problem_is_told_and_fails_the_process(write_config, tmp_path):
    """Exit code 1, and the last event says what failed, where and how to fix it."""
    code, told = run_recipe("lora", write_config(tmp_path / "gone.jsonl"))
    assert code == 1
    assert told.error["where"] == str(tmp_path / "gone.jsonl")
    assert told.error["mend"]


def start(config: Path, limit: str = "unlimited") -> subprocess.Popen[bytes]:
    """The recipe, in a process that can be signalled; ``limit`` is the largest file it may write, in KiB."""
    script = f'ulimit -f {limit}; exec bash "$0" "$1"'
    return subprocess.Popen(
        ["bash", "-c", script, str(RECIPES / "lora" / "run.sh"), str(config)],
        env=environment(config.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_sigterm_leaves_a_complete_checkpoint(write_rows, write_config):
    """It finishes the step, writes everything needed to go on, and leaves with 143."""
    config = write_config(write_rows(COLOURS), training={"max_steps": 100_000, "gradient_accumulation_steps": 2})
    output = b""
    with start(config) as process:
        deadline = time.monotonic() + 100
        for line in process.stdout:
            output += line
            if b'"step":5,' in line and b'"loss"' in line:
                os.kill(process.pid, signal.SIGTERM)
                break
            assert time.monotonic() < deadline, output
        output += process.stdout.read()
        assert process.wait(timeout=100) == 128 + signal.SIGTERM, output
    told = Told(output)
    [checkpoint] = told.of("checkpoint")
    assert is_complete(Path(checkpoint["path"]))
    assert checkpoint["step"] >= 5
    assert told.said(f"stopped on request after step {checkpoint['step']}")
    assert not told.of("result")


def test_a_full_disk_is_said_to_be_full(write_rows, write_config):
    """No file larger than 64 KiB can be written here: the run fails with the reason, and nothing passes for complete."""
    config = write_config(write_rows(COLOURS), training={"max_steps": 3})
    with start(config, limit="64") as process:
        output, _ = process.communicate(timeout=100)
    told = Told(output)
    assert process.returncode == 1, told.text
    assert "the disk is full" in told.error["text"]
    assert not any(is_complete(folder) for folder in (config.parent / "checkpoints").iterdir())


@pytest.mark.parametrize("recipe", ["lora", "sft"])
def test_test_rows_are_scored_once_at_the_end(recipe, train_here, write_rows, capfdbinary):
    """With the finished model, as `evaluate` scores what was saved; they change nothing of the training."""
    rows = write_rows([chat("the colour of lemons?", "yellow"), chat("the colour of mud?", "brown")], "test.jsonl")
    plain, _ = train_here(recipe, training={"max_steps": 11, "logging_steps": 4})
    told, run = train_here(recipe, training={"max_steps": 11, "logging_steps": 4}, data={"test_file": str(rows)})
    [result] = told.of("result")
    found = score(run / "output", rows, capfdbinary, metrics=["loss", "accuracy"])
    assert result["metrics"]["test_token_accuracy"] == pytest.approx(found["accuracy"])
    assert result["metrics"]["test_loss"] == pytest.approx(found["loss"], rel=0.02)
    assert manifest_of(run / "output")["metrics"]["test_token_accuracy"] == result["metrics"]["test_token_accuracy"]
    assert told.losses == plain.losses
    logged = [fields for fields in told.of("metrics") if "loss" in fields]
    assert [fields["step"] for fields in logged] == [1, 4, 8, 11], "the first and the last step are always measured"
    assert all("token_accuracy" in fields for fields in logged)


def test_bad_test_rows_stop_a_training_before_it_begins(train_here, write_rows):
    """Not after hours: the line is named before the model is loaded."""
    rows = write_rows('{"messages": [{"role": "user"', "test.jsonl")
    with pytest.raises(WorkerFault) as refused:
        train_here(data={"test_file": str(rows)})
    assert "test.jsonl:1" in f"{refused.value.where} {refused.value.text}"
