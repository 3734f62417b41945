"""The config of a run that calls a user's function: written by the finetune door, read by the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tunesmith.finetune.function import FunctionReference
from tunesmith.finetune.result import Measurement
from tunesmith.safe_yaml import load as load_yaml

RECIPE = "function"
RECIPES_FOLDER = Path(__file__).with_name("recipes")
"""Where the recipe is, for a server that serves one function and needs no other."""


class FunctionDoor(msgspec.Struct, frozen=True, kw_only=True):
    """What a server calls for POST /finetune."""

    model_name: str
    """A folder's name: what it trains is kept there."""
    model_path: str
    function: FunctionReference


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """From where, and to where."""

    path: str
    output_path: str
    log_path: str


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Files or addresses."""

    train: str
    valid: str
    test: str
    max_download_bytes: int
    allow_private_urls: bool


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What is called, and how often it is told of."""

    file: str
    module: str
    function: str
    show_frequency: int
    measurement: Measurement
    total_epoch_number: int
    param_dict: dict[str, Any]

    @property
    def reference(self) -> FunctionReference:
        return FunctionReference(file=self.file, module=self.module, name=self.function)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    model: Model
    data: Data
    training: Training


def read_job(path: Path) -> Job:
    """Raises InvalidInput, or OSError."""
    return msgspec.convert(load_yaml(path.read_bytes(), source=str(path)), Job)


def write_job(job: Job) -> dict[str, Any]:
    """The job by dotted path, as a door fills it in."""
    sections: dict[str, dict[str, Any]] = msgspec.to_builtins(job)
    return {f"{section}.{name}": value for section, options in sections.items() for name, value in options.items()}
