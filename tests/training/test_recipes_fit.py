"""The recipes and the workers agree: what recipe.yaml offers is what the worker reads."""

from __future__ import annotations

import pytest
from training_parts import RECIPES

from tunesmith.demo.orders import DEMO_HYPERPARAMS
from tunesmith.recipes import Recipe, parse_train_config, read_recipe, resolve, to_yaml
from tunesmith_workers.process.config import EvaluateConfig, MergeConfig, OnnxConfig, TrainConfig, read_config
from tunesmith_workers.process.faults import BadConfig

KINDS = {
    "sft": TrainConfig,
    "lora": TrainConfig,
    "evaluate": EvaluateConfig,
    "merge": MergeConfig,
    "export-onnx": OnnxConfig,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_resolved_config_is_read_whole(name, tmp_path):
    """The worker accepts exactly the options of the recipe, with no defaults of its own to fill in."""
    recipe = read_recipe(RECIPES / name)
    assert isinstance(recipe, Recipe), recipe
    data = {"data.train_file": "rows.jsonl"} if recipe.data else {}
    config = resolve(recipe, filled={"model.base": "some/model", **data})
    path = tmp_path / "config.yaml"
    path.write_bytes(to_yaml(config))
    read = read_config(KINDS[name], path)
    assert read.base == "some/model"
    assert read.job.type == name


def test_a_recipe_from_before_reporting_is_read(tmp_path):
    """A copy that somebody made of an earlier one has no such section, and nothing is sent anywhere."""
    config = resolve(read_recipe(RECIPES / "lora"), filled={"model.base": "m", "data.train_file": "d"})
    del config["reporting"]
    path = tmp_path / "config.yaml"
    path.write_bytes(to_yaml(config))
    assert read_config(TrainConfig, path).reporting.wandb.project is None


def test_the_names_of_other_tools_are_understood():
    """Requests written for well-known trainers mean the same here."""
    request = {
        "learning_rate": 1e-4,
        "per_device_train_batch_size": 2,
        "max_steps": 7,
        "lora_config": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]},
    }
    config = resolve(read_recipe(RECIPES / "lora"), request=request, filled={"model.base": "m", "data.train_file": "d"})
    assert config["training"]["max_steps"] == 7
    assert config["lora"] == {**request["lora_config"], "merge": False}


def test_a_train_config_in_the_names_of_other_tools_is_understood():
    """A LoRA config as it is written for ChatGLM and its kin, `alpha` and all."""
    written = b"""
job: {type: lora, project: demo}
data: {max_seq_length: 512}
lora: {r: 8, alpha: 16, dropout: 0.05, target_modules: [query_key_value]}
training: {epochs: 2, batch_size: 4, lr: 1e-4, gradient_accumulation: 2}
"""
    config = resolve(
        read_recipe(RECIPES / "lora"),
        train_config=parse_train_config(written, source="train.yaml", max_bytes=1000),
        filled={"model.base": "m", "data.train_file": "d"},
    )
    assert config["lora"] == {
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "target_modules": ["query_key_value"],
        "merge": False,
    }
    names = ("num_train_epochs", "per_device_train_batch_size", "learning_rate", "gradient_accumulation_steps")
    assert [config["training"][name] for name in names] == [2.0, 4, 1e-4, 2]
    assert config["data"]["max_length"] == 512


def test_the_demos_wishes_are_options_of_the_recipe():
    """The demo can be started."""
    filled = {"model.base": "m", "data.train_file": "d"}
    config = resolve(read_recipe(RECIPES / "lora"), request=dict(DEMO_HYPERPARAMS), filled=filled)
    assert config["training"]["max_steps"] == DEMO_HYPERPARAMS["training.max_steps"]


@pytest.mark.parametrize("name", ["lora", "sft"])
def test_off_is_no_boolean(name, tmp_path):
    """`accelerate: off` means what it says, asked for over HTTP and in a config written by hand; a recipe without it means auto."""
    recipe = read_recipe(RECIPES / name)
    filled = {"model.base": "m", "data.train_file": "d"}
    path = tmp_path / "config.yaml"
    path.write_bytes(to_yaml(resolve(recipe, request={"training.accelerate": "off"}, filled=filled)))
    assert read_config(TrainConfig, path).training.accelerate == "off"
    path.write_text("model: {base: m}\ntraining: {accelerate: off, preflight: false}\n")
    read = read_config(TrainConfig, path, RECIPES / name / "recipe.yaml").training
    assert (read.accelerate, read.preflight) == ("off", False)
    older = tmp_path / "older.yaml"
    older.write_text((RECIPES / name / "recipe.yaml").read_text().replace("    accelerate: auto", "    # "))
    path.write_text("model: {base: m}\n")
    assert read_config(TrainConfig, path, older).training.accelerate == "auto"


def test_a_config_by_hand_may_leave_out_what_the_recipe_decides(tmp_path):
    """Two lines are enough, numbers may be written as people write them, and a wrong key is named."""
    path = tmp_path / "config.yaml"
    path.write_text("model: {base: m}\ntraining: {learning_rate: 1e-4}\n")
    config = read_config(TrainConfig, path, RECIPES / "lora" / "recipe.yaml")
    assert config.training.learning_rate == 1e-4
    path.write_text("model: {base: m}\ntraining: {max_steps: many}\n")
    with pytest.raises(BadConfig) as refused:
        read_config(TrainConfig, path, RECIPES / "lora" / "recipe.yaml")
    assert refused.value.where == f"{path}: training.max_steps"
