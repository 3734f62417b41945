"""The run that a request of this door comes to, in the words of a request for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tunesmith.records import Callback, DatasetReference, IdempotentCall


class TaskPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is asked for with."""

    recipe: str
    model: str | None
    dataset: DatasetReference | None = None
    hyperparams: Mapping[str, Any] = {}
    hyperparams_from: str = "config"
    """The field that they come from, as faults name it."""
    notes: str = ""
    priority: int = 0
    callback: Callback | None = None
    labels: Mapping[str, str] = {}
    idempotency: IdempotentCall | None = None
