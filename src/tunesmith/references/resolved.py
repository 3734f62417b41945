"""What a model reference was resolved to, for those who have to load it. Says nothing of how it is served or trained."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec


class ModelKind(StrEnum):
    RUN = "run"  # the output of a run that succeeded
    CHECKPOINT = "checkpoint"  # a checkpoint, by its id or by a mark
    DEPLOYMENT = "deployment"  # what a deployment serves
    PULLED = "pulled"  # a model below state/models
    PATH = "path"  # a folder below the allowed roots
    HUB = "hub"  # a model that a worker fetches from a hub


class ResolvedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a model reference stands for."""

    reference: str
    """As it was given."""
    kind: ModelKind
    """What kind of name it is; of an alias, what kind it stands for."""
    alias_of: str | None = None
    """What it stands for in the settings, if it is an alias."""
    path: str
    """The folder with the model or the adapter, or a hub id that a worker fetches."""
    base: str | None = None
    """Of an adapter: the folder or hub id of its base model. Null for a whole model."""
    rank: int | None = None
    """Of an adapter: its rank, where it says so."""
    run_id: str | None = None
    """The run that has made it, where the name is of a run or a checkpoint."""
    adapter: bool
    """Whether it is an adapter, which needs its base to be loaded."""
    explanation: str
    """What it is, in a sentence."""


class ResolvedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter, for who trains on from it."""

    path: str
    base: str
    """The folder or hub id of its base model."""
    shape: Mapping[str, Any]
    """By the names that a config has for it: ``r``, ``lora_alpha``, ``lora_dropout``, ``target_modules``."""


class Located(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model of a reference is. Whether that holds a model has not been looked at."""

    kind: ModelKind
    path: str
    explanation: str
    alias_of: str | None = None
    run_id: str | None = None
