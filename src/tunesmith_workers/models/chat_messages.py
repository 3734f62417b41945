"""A conversation in OpenAI's form as the chat template's text: training, evaluation and the built-in engine render alike.

What is a message at all is for others to say; here nothing is refused but by the template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from jinja2 import UndefinedError

from tunesmith_workers.models.call_ids import asks_short_ids, with_short_ids

Message = Mapping[str, Any]
_UNREAD = frozenset({"weight", "refusal"})
"""Words of training files and of answers, for no template."""


def render(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None = None, *, generation_prompt: bool = False
) -> str:
    """The text that the tokenizer's chat template makes of the conversation; whatever the template raises passes through.

    In OpenAI's form a call's arguments are a text with JSON in it. Qwen's, Llama's and Hermes' templates write JSON of an
    object, and would put such a text in quotes; DeepSeek's join texts, and cannot join an object. So it is given what it
    writes as JSON, once.
    """

    def text_with(arguments: Callable[[Any], Any]) -> str:
        return str(
            tokenizer.apply_chat_template(
                for_template(messages, tokenizer.chat_template, arguments),
                tools=list(tools or ()) or None,
                tokenize=False,
                add_generation_prompt=generation_prompt,
            )
        )

    if not any(message.get("tool_calls") for message in messages):
        return text_with(_as_object)
    try:
        text = text_with(_as_object)
    except (TypeError, UndefinedError):
        return text_with(_as_text)
    return text_with(_as_text) if _shows_objects(messages, text) else text


def for_template(messages: Iterable[Message], template: Any, arguments: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """The messages for this template, which is a text or several by name, with the arguments of calls in this form.

    What is null is left out. A developer's message is a system message where the template does not know developers, and the
    answer of a function is that of a tool. Ids of calls are shortened where the template refuses longer ones.
    """
    roles = {"function": "tool"} if "developer" in str(template) else {"function": "tool", "developer": "system"}
    found = [_message(message, roles, arguments) for message in messages]
    return with_short_ids(found) if asks_short_ids(template) else found


def called_names(message: Message) -> list[str]:
    """The functions that a message calls."""
    return [str(function.get("name")) for function in _functions(message)]


def _message(message: Message, roles: Mapping[str, str], arguments: Callable[[Any], Any]) -> dict[str, Any]:
    said = {name: value for name, value in message.items() if value is not None and name not in _UNREAD}
    said["role"] = roles.get(message["role"], message["role"])
    # Templates ask whether there is the key, and then for the first call.
    calls = said.pop("tool_calls", None)
    return {**said, "tool_calls": [_call(call, arguments) for call in calls]} if calls else said


def _call(call: Mapping[str, Any], form: Callable[[Any], Any]) -> dict[str, Any]:
    function = call.get("function")
    if isinstance(function, Mapping):
        return {**call, "function": {**function, "arguments": form(function.get("arguments"))}}
    return {**call, "arguments": form(call.get("arguments"))}


def _functions(message: Message) -> Iterator[Mapping[str, Any]]:
    for call in message.get("tool_calls") or ():
        function = call.get("function")
        yield function if isinstance(function, Mapping) else call


def _shows_objects(messages: Sequence[Message], text: str) -> bool:
    """Whether the template wrote an object as Python shows it, which is no JSON."""
    shown = [str(_as_object(function.get("arguments"))) for message in messages for function in _functions(message)]
    contents = [str(message.get("content")) for message in messages]
    return any("'" in one and one in text and not any(one in content for content in contents) for one in shown)


def _as_object(given: Any) -> Any:
    if given is None or (isinstance(given, str) and not given.strip()):
        return {}
    if isinstance(given, str):
        try:
            return _decode(given)
        except (msgspec.DecodeError, RecursionError):
            return given  # a model's own words, handed back to it
    return given


def _as_text(given: Any) -> Any:
    if given is None or (isinstance(given, str) and not given.strip()):
        return "{}"
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


_decode = msgspec.json.Decoder(dict[str, Any]).decode
