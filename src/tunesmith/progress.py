"""The line format: how a training process talks to Tunesmith, by printing.

One JSON object on a line with a ``tunesmith`` key is an event; a line that is a dict as the transformers Trainer
prints it is read as metrics; every other line is log. This module holds both sides: ``emit`` for the process and
``read_line`` for the reader. It imports the standard library and msgspec only, because workers import it.

Every event may carry ``at``, the time in unix seconds; ``emit`` adds it.

    {"tunesmith":"metrics","step":20,"total_steps":200,"epoch":0.4,"loss":1.31}
    {"tunesmith":"progress","phase":"training","step":20,"total_steps":200}
    {"tunesmith":"checkpoint","path":".../checkpoint-20","step":20,"metrics":{}}
    {"tunesmith":"artifact","path":".../adapter_model.safetensors","kind":"adapter"}
    {"tunesmith":"result","metrics":{"exact_match":1.0},"model":".../output"}
    {"tunesmith":"message","level":"error","text":"no row is left","where":"train.jsonl:7","mend":"..."}
"""

from __future__ import annotations

import ast
import math
import sys
import time
from typing import Any, Literal, get_args

import msgspec

Kind = Literal["metrics", "progress", "checkpoint", "artifact", "result", "message"]
KINDS: frozenset[str] = frozenset(get_args(Kind))

_MARK = b'"tunesmith"'
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])

# A dict printed by a Trainer is short; anything longer is log, and is not handed to the parser.
_LONGEST_DICT_LINE = 16_384


def emit(kind: Kind, **fields: Any) -> None:
    """Print one event on a line of its own, stamped with the time, and flush it. NaN and infinity become null."""
    line = _encoder.encode({"tunesmith": kind, **_finite(fields), "at": round(time.time(), 3)})
    sys.stdout.flush()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def read_line(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """Read one line without its newline: ``(kind, fields)``, or None when it is log."""
    # A progress bar that shares the line rewinds with a carriage return before the event is printed.
    text = line.strip().rpartition(b"\r")[2]
    if not text.startswith(b"{") or not text.endswith(b"}"):
        return None
    if _MARK in text:
        event = _read_event(text)
        if event is not None:
            return event
    if len(text) <= _LONGEST_DICT_LINE:
        metrics = _read_trainer_dict(text)
        if metrics:
            return "metrics", metrics
    return None


def _read_event(text: bytes) -> tuple[str, dict[str, Any]] | None:
    try:
        fields = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    kind = fields.pop("tunesmith", None)
    if isinstance(kind, str) and kind in KINDS:
        return kind, fields
    return None


def _read_trainer_dict(text: bytes) -> dict[str, float]:
    """Read ``{'loss': 0.5, 'epoch': '1.0'}`` as transformers prints it; {} when it is something else."""
    try:
        fields = ast.literal_eval(text.decode())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        return {}
    metrics = {key: number for key, value in fields.items() if (number := _number(value)) is not None}
    # Every Trainer line names the epoch; a dict without it is somebody's print of something else.
    return metrics if "epoch" in metrics and len(metrics) > 1 else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
