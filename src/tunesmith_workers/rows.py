"""Reads data files into rows: JSON Lines or one JSON array, four shapes, every fault with its line.

A row becomes a conversation or a prompt with its completion. What a model sees of it is decided in ``rendering``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.faults import BadRows, listed

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
_ROLE_NAMES = {
    **{role: role for role in ROLES},
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function": "tool",
}
_BYTE = re.compile(r"\(byte (\d+)\)")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row: ``messages``, or ``prompt`` and ``completion``."""

    where: str
    """``file:line``, or ``file: item n`` in a JSON array."""
    shape: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Any, ...] = ()
    prompt: str = ""
    completion: str = ""


class RowFault(Exception):
    """What is wrong with one row."""


def read_rows(path: Path) -> list[Row]:
    """Every row of the file.

    Raises:
        BadRows: the file is missing, empty or unreadable, or some rows are wrong: all of them are named at once.
    """
    rows: list[Row] = []
    faults: list[str] = []
    for where, row in _objects(path):
        try:
            if isinstance(row, msgspec.DecodeError):
                raise RowFault(f"is not valid JSON: {row}")  # noqa: TRY301  # gathered with the other faults
            rows.append(_as_row(row, where))
        except RowFault as fault:
            faults.append(f"{where}: {fault}")
    if faults:
        plural = "one row cannot" if len(faults) == 1 else f"{len(faults)} rows cannot"
        first = faults[0].partition(": ")[0]
        raise BadRows(f"{plural} be used:\n{listed(faults)}", where=first, mend="mend or remove them")
    if not rows:
        raise BadRows("holds no rows", where=str(path), mend="give a file with one JSON object on each line")
    return rows


def shapes_of(rows: list[Row]) -> str:
    """How many rows have which shape, in words."""
    return ", ".join(f"{count} {shape}" for shape, count in Counter(row.shape for row in rows).most_common())


def _objects(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError:
        raise BadRows("the data file does not exist", where=str(path), mend="check the path") from None
    except OSError as error:
        raise BadRows(f"cannot be read: {error.strerror}", where=str(path), mend="check the path") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadRows("is UTF-16, not UTF-8", where=str(path), mend="save the file as UTF-8")
    if content.lstrip()[:1] == b"[":
        return _items_of_array(path, content)
    return _lines(path, content)


def _items_of_array(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    try:
        items = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        found = _BYTE.search(str(error))
        line = content[: int(found[1])].count(b"\n") + 1 if found else content.count(b"\n") + 1
        raise BadRows(f"is not valid JSON: {error}", where=f"{path}:{line}", mend="mend that line") from None
    yield from ((f"{path}: item {number}", item) for number, item in enumerate(items, start=1))


def _lines(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    decode = msgspec.json.Decoder().decode
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", decode(line)
        except msgspec.DecodeError as error:
            yield f"{path}:{number}", error
        except UnicodeDecodeError as error:
            yield f"{path}:{number}", msgspec.DecodeError(f"not UTF-8: {error.reason}")


def _as_row(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise RowFault("is not a JSON object")
    for shape, key in (
        ("messages", "messages"),
        ("conversations", "conversations"),
        ("instruction", "output"),
        ("prompt_completion", "completion"),
    ):
        if key in row:
            return _READERS[shape](row, where)
    keys = ", ".join(map(str, row)) or "none"
    raise RowFault(
        f"has no known shape (its keys: {keys}); expected messages, conversations, instruction/input/output, "
        "or prompt/completion"
    )


def _conversation(row: dict[str, Any], where: str) -> Row:
    shape = "messages" if "messages" in row else "conversations"
    turns = row[shape]
    if not isinstance(turns, list) or not turns:
        raise RowFault(f"{shape} must be a list with at least one message")
    messages = tuple(_message(turn, f"{shape}[{number}]") for number, turn in enumerate(turns))
    if isinstance(row.get("system"), str) and row["system"] and messages[0]["role"] != "system":
        messages = ({"role": "system", "content": row["system"]}, *messages)
    if all(message["role"] != "assistant" for message in messages):
        raise RowFault("has no assistant message, so there is nothing to learn from it")
    tools = row.get("tools") or []
    if not isinstance(tools, list):
        raise RowFault("tools must be a list")
    return Row(where=where, shape=shape, messages=messages, tools=tuple(tools))


def _message(turn: Any, place: str) -> Message:
    if not isinstance(turn, dict):
        raise RowFault(f"{place} must be an object with role and content")
    role = turn.get("role", turn.get("from"))
    if not isinstance(role, str) or role not in _ROLE_NAMES:
        raise RowFault(f"{place} has the role {role!r}; the roles are {', '.join(ROLES)}")
    content = turn.get("content", turn.get("value"))
    if content is None and turn.get("tool_calls"):
        content = ""
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    return {**rest, "role": _ROLE_NAMES[role], "content": _text(content, f"{place}.content")}


def _text(content: Any, place: str) -> str:
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(_text(part.get("text"), place) for part in content)
    if not isinstance(content, str):
        raise RowFault(f"{place} must be text, not {type(content).__name__}")
    return content


def _instruction(row: dict[str, Any], where: str) -> Row:
    parts = [_text(row[key], key) for key in ("instruction", "input") if row.get(key) is not None]
    question = "\n\n".join(part for part in parts if part)
    if not question:
        raise RowFault("has an output, but neither instruction nor input")
    system = [{"role": "system", "content": _text(row["system"], "system")}] if row.get("system") else []
    messages = [
        *system,
        {"role": "user", "content": question},
        {"role": "assistant", "content": _text(row["output"], "output")},
    ]
    return Row(where=where, shape="instruction", messages=tuple(messages))


def _prompt_completion(row: dict[str, Any], where: str) -> Row:
    prompt = _text(row.get("prompt", ""), "prompt")
    completion = _text(row["completion"], "completion")
    if not completion:
        raise RowFault("has an empty completion")
    return Row(where=where, shape="prompt_completion", prompt=prompt, completion=completion)


_READERS = {
    "messages": _conversation,
    "conversations": _conversation,
    "instruction": _instruction,
    "prompt_completion": _prompt_completion,
}
