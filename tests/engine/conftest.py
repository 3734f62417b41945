"""Tiny models to serve."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from support.tiny_model import save_tiny_model, tiny_tokenizer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """A model this small only waits for a second thread, the longer the busier the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_model(tokenizer, tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model", tokenizer)


@pytest.fixture(scope="session")
def adapters(tiny_model, tokenizer, tmp_path_factory) -> list[Path]:
    """Three adapters of the tiny model, each with other layers, ranks and scales, that change what it says."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    made = []
    for number, (modules, options) in enumerate(
        (
            (["q_proj", "v_proj"], {"r": 4, "lora_alpha": 8}),
            (
                ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
                {"r": 2, "use_rslora": True},
            ),
            (["down_proj", "k_proj"], {"r": 3, "alpha_pattern": {"k_proj": 12}, "rank_pattern": {"k_proj": 5}}),
        )
    ):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of PEFT about transformers
            adapted = get_peft_model(model, LoraConfig(target_modules=modules, init_lora_weights=False, **options))
        folder = tmp_path_factory.mktemp("adapter") / f"adapter-{number}"
        adapted.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made.append(folder)
    return made


@pytest.fixture
def changed_adapter(adapters, tmp_path):
    """A copy of an adapter whose config says something else."""

    def change(**options: Any) -> Path:
        folder = tmp_path / "changed"
        folder.mkdir()
        for file in adapters[0].iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "adapter_config.json").read_text()) | options
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    return change
