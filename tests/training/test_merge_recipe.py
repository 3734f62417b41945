"""The recipe merge: a whole model that says what base and adapter said, in the type that was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from adapter_parts import export_config, make_adapter
from peft import PeftModel
from training_parts import manifest_of, run_recipe

PROMPT = torch.tensor([[5, 9, 40, 41, 7, 100, 200, 3]])


pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def adapter(tiny_model, tokenizer, tmp_path_factory) -> Path:
    return make_adapter(tiny_model, tokenizer, tmp_path_factory.mktemp("adapter") / "adapter")


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(PROMPT).logits.float()


@pytest.mark.parametrize(("dtype", "stored"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_the_merged_model_says_what_base_and_adapter_said(dtype, stored, adapter, tiny_model, tmp_path):
    """Loaded by transformers alone: the same logits, tokenizer, template and end tokens; the report tells how exact it is."""
    code, told = run_recipe("merge", export_config(tmp_path, adapter, model={"dtype": dtype}))
    assert code == 0, told.text
    output = tmp_path / "output"
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    before, plain = (
        logits(PeftModel.from_pretrained(base, adapter)),
        logits(transformers.AutoModelForCausalLM.from_pretrained(tiny_model)),
    )
    merged = transformers.AutoModelForCausalLM.from_pretrained(output)
    assert str(merged.dtype) == f"torch.{stored}"
    result = told.of("result")[-1]
    assert result["model"] == str(output)
    assert result["metrics"]["max_abs_diff"] < 1e-4
    away = float((logits(merged) - before).abs().max())
    assert away < (1e-4 if stored == "float32" else 0.5)
    assert away < 0.1 * float((plain - before).abs().max())
    assert (result["metrics"]["saved_max_abs_diff"] < 1e-4) == (stored == "float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    assert tokenizer.chat_template == transformers.AutoTokenizer.from_pretrained(adapter).chat_template
    assert transformers.GenerationConfig.from_pretrained(output).eos_token_id == [2, 0]
    manifest = manifest_of(output)
    assert manifest["kind"] == "model"
    assert manifest["metrics"] == result["metrics"]
    assert {"model.safetensors", "parity.json"} <= {file["path"] for file in manifest["files"]}
    assert not (output / "adapter_config.json").exists()


def test_what_is_not_exact_is_refused(adapter, tmp_path):
    """Over the tolerance the run fails with both numbers, and leaves no model."""
    code, told = run_recipe("merge", export_config(tmp_path, adapter, export={"tolerance": 1e-12}))
    assert code == 1
    assert told.error["where"] == "export.tolerance"
    assert "1e-12" in told.error["text"]
    assert not (tmp_path / "output").exists()
    assert told.of("result") == []


def test_a_whole_model_has_nothing_to_merge(tiny_model, tmp_path):
    code, told = run_recipe("merge", export_config(tmp_path, tiny_model))
    assert code == 1
    assert told.error["where"] == "model.base"
    assert "whole model" in told.error["text"]


def test_an_adapter_whose_base_is_gone(adapter, tmp_path):
    """Named, with the place."""
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in adapter.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    config = yaml.safe_load((moved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/no/such/base"
    (moved / "adapter_config.json").write_text(json.dumps(config))
    code, told = run_recipe("merge", export_config(tmp_path / "run", moved))
    assert code == 1
    assert told.error["where"] == "/no/such/base"
