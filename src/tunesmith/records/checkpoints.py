"""Checkpoints, and what people call them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from tunesmith.records.base import IdempotentCall, Record


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person calls a checkpoint; it is kept as long as it has one."""

    tag_type: str
    release_tag: str | None = None
    """A model reference."""
    metrics: dict[str, Any]
    at: datetime
    idempotency: tuple[IdempotentCall, ...] = ()
    """The call that made it, after those of the marks whose place it took: repeating one of these changes nothing."""


class Checkpoint(Record, frozen=True, kw_only=True):
    """A complete folder that a run wrote."""

    run_id: str
    step: int
    path: str
    bytes: int
    created_at: datetime
    """When its manifest was written."""
    experiment_id: str | None = None
    epoch: float | None = None
    metrics: dict[str, float] = {}
    base_model: str | None = None
    data_sha256: str | None = None
    template_sha256: str | None = None
    marks: tuple[Mark, ...] = ()
    removed_at: datetime | None = None
    """When it went from the disk; its record stays."""
