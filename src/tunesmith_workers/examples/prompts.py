"""Reads data files into prompts, for methods that have the model answer and judge what it says.

Rows of the shape ``prompt``, and OpenAI's rows for reinforcement: ``messages`` whose last one is to be answered. Nothing is
rendered here, and nothing judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.data.shapes import Message, Texts, read
from tunesmith_workers.examples.rows import read_all


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What the model is asked: ``messages``, or a ``text`` to go on from."""

    where: str
    """``file:line``, with the number of the item in a JSON array."""
    messages: tuple[Message, ...] = ()
    text: str = ""
    tools: tuple[Any, ...] = ()
    item: dict[str, Any]
    """The row as it is in the file, with whatever a judge needs to know, such as ``reference_answer``."""


def read_prompts(path: Path, most: int | None = None) -> list[Prompt]:
    """Every prompt of the file, or of all files in a folder by name; or the first ``most``.

    Raises:
        BadRows: the file is missing, empty or unreadable, or some rows are no prompts: all of them are named at once.
    """
    return read_all(path, _as_prompt, most)


def _as_prompt(row: Any, where: str) -> Prompt:
    reading = read(row, shapes=("prompt",))
    assert isinstance(reading, Texts), "a prompt is no conversation with its answer"
    said, tools = reading.fields["prompt"], tuple(reading.tools)
    if isinstance(said, str):
        return Prompt(where=where, text=said, tools=tools, item=row)
    return Prompt(where=where, messages=tuple(said), tools=tools, item=row)
