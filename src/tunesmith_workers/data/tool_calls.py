"""The tools of a row and the calls of a message, in OpenAI's form; the older ``functions`` become the newer one.

Arguments stay what they are, JSON in a text or an object; what a chat template is given is in ``models.chat_messages``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tunesmith_workers.data.row_faults import Changes, RowFault


def tools_of(row: Mapping[str, Any], changes: Changes, place: str = "") -> list[Any]:
    """The row's ``tools`` and ``functions`` as tools; ``place`` stands before their names in what is said of them.

    Raises:
        RowFault: they are no lists of objects.
    """
    tools, functions = (_objects(row.get(name), f"{place}{name}") for name in ("tools", "functions"))
    if functions:
        changes.append("functions_renamed")
    return [*tools, *({"type": "function", "function": function} for function in functions)]


def with_tool_calls(message: dict[str, Any], place: str, changes: Changes) -> dict[str, Any]:
    """The message with its calls under ``tool_calls``.

    Raises:
        RowFault: a call has no name, or arguments that are no JSON object.
    """
    old, calls = message.get("function_call"), message.get("tool_calls")
    if old is not None and not calls:
        _check_function(old, f"{place}.function_call")
        changes.append("functions_renamed")
        rest = {key: value for key, value in message.items() if key != "function_call"}
        return {**rest, "tool_calls": [{"type": "function", "function": old}]}
    if calls is not None:
        for number, call in enumerate(_objects(calls, f"{place}.tool_calls")):
            _check_call(call, f"{place}.tool_calls[{number}]")
    return message


def _objects(value: Any, place: str) -> list[Any]:
    if not value:
        return []
    if not isinstance(value, list):
        raise RowFault(f"{place} must be a list", kind="wrong_type", field=place)
    for number, one in enumerate(value):
        if not isinstance(one, dict):
            raise RowFault(f"{place}[{number}] must be an object", kind="wrong_type", field=f"{place}[{number}]")
    return value


def _check_call(call: Mapping[str, Any], place: str) -> None:
    kind = call.get("type")
    if kind not in (None, "function"):
        raise RowFault(f"{place}.type must be function", kind="wrong_call", field=f"{place}.type")
    # Some files have the function's fields beside the type, not below it; templates take both.
    nested = "function" in call
    _check_function(call["function"] if nested else call, f"{place}.function" if nested else place)


def _check_function(function: Any, place: str) -> None:
    if not isinstance(function, dict):
        raise RowFault(f"{place} must be an object with name and arguments", kind="wrong_call", field=place)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise RowFault(f"{place}.name must be the function's name", kind="wrong_call", field=f"{place}.name")
    arguments = function.get("arguments")
    if arguments is None or isinstance(arguments, dict):
        return
    if not isinstance(arguments, str) or (arguments.strip() and not _is_object(arguments)):
        field = f"{place}.arguments"
        raise RowFault(f"{field} must be a JSON object, as text", kind="wrong_call", field=field)


def _is_object(text: str) -> bool:
    try:
        _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


_decode = msgspec.json.Decoder(dict[str, Any]).decode
