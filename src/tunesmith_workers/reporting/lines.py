"""What a training tells the process that reports for it: one JSON object on a line, the opening first. No reading or writing here."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec


class Opening(msgspec.Struct, frozen=True, kw_only=True, tag="opening"):
    """Where to report, and what of."""

    project: str
    name: str | None
    entity: str | None
    tags: tuple[str, ...]
    run_id: str | None
    """Of the service; None for a training that was started by hand."""
    resumes: bool
    """Whether the training begins at a checkpoint."""
    folder: str
    """Of the run. What is kept for reporting lies below it."""
    config: dict[str, Any]


class Measured(msgspec.Struct, frozen=True, kw_only=True, tag="measured"):
    """What was measured after a step."""

    step: int
    values: dict[str, float]


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The training is over."""

    exit_code: int


Line: TypeAlias = Opening | Measured | Ended

decode_line = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


def line_of(said: Line) -> bytes:
    return _encode(said) + b"\n"
