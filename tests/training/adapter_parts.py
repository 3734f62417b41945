"""An adapter with weights that change what a model says, and the config of an export of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from peft import LoraConfig, get_peft_model


def make_adapter(base: Path, tokenizer: Any, folder: Path) -> Path:
    """With a tokenizer and a place to stop of its own."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.GenerationConfig(eos_token_id=[2, 0], pad_token_id=0).save_pretrained(folder)
    return folder


def export_config(folder: Path, base: Path, **sections: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = folder / "config.yaml"
    sections["model"] = {"base": str(base), **sections.get("model", {})}
    config.write_text(yaml.safe_dump(sections))
    return config
