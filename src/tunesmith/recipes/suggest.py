"""Finds the name that a person probably meant, and shows their value briefly. Knows nothing about recipes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

_LONGEST_NAME = 100
"""Comparing names takes time quadratic in their length; nothing real is longer."""
_LONGEST_SHOWN = 60


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The most similar candidate, or None when nothing is close."""
    if len(name) > _LONGEST_NAME:
        return None
    close = difflib.get_close_matches(name, list(candidates), n=1)
    return close[0] if close else None


def did_you_mean(name: Any, candidates: Iterable[str]) -> str | None:
    """The mend for a wrong name, where there is a similar right one."""
    close = nearest(name, candidates) if isinstance(name, str) else None
    return f"did you mean {close}?" if close else None


def shortened(text: str) -> str:
    """A name or value for a message: not long, and free of what cannot be encoded."""
    brief = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
    return brief.encode(errors="replace").decode()


def described(value: Any) -> str:
    """``the text "auto"``, ``the number 3.0``, ``true``, ``a list``: for the second half of "must be X, not Y"."""
    if isinstance(value, str):
        return f"the text {json.dumps(shortened(value), ensure_ascii=False)}" if value else "an empty text"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) and abs(value) >= 2**64:
        return "an enormous number"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else "something else"
