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

import math
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

Kind = Literal["metrics", "progress", "checkpoint", "artifact", "result", "message"]
KINDS: frozenset[str] = frozenset(get_args(Kind))

_MARK = b'"tunesmith"'
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])

# A dict printed by a Trainer is short; anything longer is log, and is not looked at closely.
_LONGEST_DICT_LINE = 16_384
# 'name': 0.5 or 'name': '0.5', and what separates it from the next. An expression of our own, because a Python parser
# fed with whatever a process prints raises and warns in more ways than one can list.
_DICT_ITEM = re.compile(r"""\s*(['"])([^'"\\]*)\1\s*:\s*(?:(['"])([^'"\\]*)\3|([-+.\w]+))\s*(,|$)""")
# Deeper events could be read here and then not be written by somebody with less room on the stack.
_DEEPEST_EVENT = 32


def emit(kind: Kind, /, **fields: Any) -> None:
    """Print one event on a line of its own, stamped with the time, and flush it.

    NaN and infinity become null; what is no Unicode in a text, such as a strange file name, becomes question marks.
    """
    sys.stdout.flush()
    sys.stdout.buffer.write(event_line(kind, fields))
    sys.stdout.buffer.flush()


def event_line(kind: Kind, fields: Mapping[str, Any]) -> bytes:
    """What ``emit`` prints, for a process that keeps standard output for something else."""
    return _encoder.encode({"tunesmith": kind, **_writable(dict(fields)), "at": round(time.time(), 3)}) + b"\n"


def read_line(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """Read one line without its newline: ``(kind, fields)``, or None when it is log."""
    # A progress bar that shares the line rewinds with a carriage return before the event is printed.
    text = line.strip().rpartition(b"\r")[2]
    if not text.startswith(b"{") or not text.endswith(b"}"):
        return None
    if _MARK in text:
        return _read_event(text)
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
    if not isinstance(kind, str) or kind not in KINDS:
        return None
    if text.count(b"{") + text.count(b"[") > _DEEPEST_EVENT and _deeper_than(fields, _DEEPEST_EVENT):
        return None
    return kind, fields


def _deeper_than(value: Any, limit: int) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return limit == 0 or any(_deeper_than(child, limit - 1) for child in children)


def _read_trainer_dict(text: bytes) -> dict[str, float]:
    """Read ``{'loss': 0.5, 'epoch': '1.0'}`` as transformers prints it; {} when it is something else."""
    try:
        items = text[1:-1].decode()
    except UnicodeDecodeError:
        return {}
    metrics: dict[str, float] = {}
    position = 0
    while position < len(items):
        item = _DICT_ITEM.match(items, position)
        if item is None:
            return {}
        number = _number(item[5] if item[4] is None else item[4])
        if number is not None:
            metrics[item[2]] = number
        position = item.end()
    # Every Trainer line names the epoch; a dict without it is somebody's print of something else.
    return metrics if "epoch" in metrics and len(metrics) > 1 else {}


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _writable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_writable(str(key)): _writable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    return value
