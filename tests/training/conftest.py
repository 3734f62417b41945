"""A tiny model with a tokenizer and a chat template, built in a second."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from training_parts import CHATML


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """A model this small only waits for a second thread, the longer the busier the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level, so it reads anything; it has learned no merges worth mentioning."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    corpus = ["user assistant system the colour of grass is green and the sky is blue"] * 4
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(corpus, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special[1:],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="session")
def tiny_model(tokenizer, tmp_path_factory) -> Path:
    """A folder with a two-layer Llama of random weights."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.15,  # an adapter on frozen weights can only learn where these say something
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write_rows(tmp_path) -> Callable[..., Path]:
    """Write rows as JSON Lines, or text as it is."""

    def write(rows: Sequence[Any] | str | bytes, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        else:
            path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def write_config(tmp_path, tiny_model) -> Callable[..., Path]:
    """Write a config that trains the tiny model fast; keyword arguments are sections that override it."""

    def write(data_file: Path, **sections: dict[str, Any]) -> Path:
        content: dict[str, dict[str, Any]] = {
            "model": {"base": str(tiny_model)},
            "data": {"train_file": str(data_file)},
            "training": {"max_steps": 12, "learning_rate": 0.01, "logging_steps": 1, "warmup_steps": 0},
        }
        for section, options in sections.items():
            content.setdefault(section, {}).update(options)
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
        return folder / "config.yaml"

    return write
