"""A tiny model with a tokenizer and a chat template, built in a second."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

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
    """A folder with a two-layer Llama of random weights."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model", tokenizer)


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
