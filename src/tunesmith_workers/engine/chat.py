"""OpenAI chat completions as the engine speaks them: what a request may say, and what it is refused for.

Fields that are not known are passed over, as OpenAI's clients send more of them every year; those that are known are checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from tunesmith_workers.engine.sampling import Sampling
from tunesmith_workers.models.chat_messages import render

_MOST_ANSWERS = 128
_MOST_STOPS = 16
_LONGEST_STOP = 500


class Refusal(Exception):
    """A request that cannot be answered: OpenAI's error object."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation, with all that a chat template may read."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class JsonSchema(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer must look like."""

    name: str = ""
    schema: dict[str, Any] = {}
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of answer is wanted."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream ends."""

    include_usage: bool = False


Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Tokens = Annotated[int, msgspec.Meta(ge=1)]


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    model: str = ""
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=_MOST_ANSWERS)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, msgspec.Meta(ge=-100, le=100)]] | None = None
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Any]] | None = None
    ignore_eos: bool = False
    """Go on to ``max_tokens`` whatever the model says, as vLLM does: for measuring."""
    return_token_ids: bool = False
    """Tell the token ids of prompt and answer, as vLLM does."""

    @property
    def characters(self) -> int:
        """About how long the conversation is."""
        return sum(len(str(message.content)) for message in self.messages)


_decode_request = msgspec.json.Decoder(ChatRequest).decode


def read_request(body: bytes) -> ChatRequest:
    """The request.

    Raises:
        Refusal: it is not one.
    """
    try:
        return _decode_request(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(_plainly(str(error)), param=_field(str(error))) from error


def sampling_of(request: ChatRequest, defaults: Mapping[str, float], vocabulary: int) -> Sampling:
    """How tokens are chosen; what the request does not say is as the model's authors set it.

    Raises:
        Refusal: a token id of ``logit_bias`` is none.
    """

    def chosen(name: str, plain: float) -> float:
        asked = getattr(request, name)
        return float(defaults.get(name, plain)) if asked is None else float(asked)

    return Sampling(
        temperature=chosen("temperature", 1.0),
        top_p=chosen("top_p", 1.0),
        top_k=max(0, int(chosen("top_k", 0))),
        seed=request.seed,
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        logit_bias=_biases(request.logit_bias or {}, vocabulary),
        top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
    )


def stops_of(request: ChatRequest) -> list[str]:
    """Texts that end an answer."""
    stops = [request.stop] if isinstance(request.stop, str) else list(request.stop or [])
    if len(stops) > _MOST_STOPS or any(not stop or len(stop) > _LONGEST_STOP for stop in stops):
        raise Refusal(f"at most {_MOST_STOPS} texts of 1 to {_LONGEST_STOP} characters", param="stop")
    return stops


def schema_of(request: ChatRequest) -> Mapping[str, Any] | None:
    """The JSON schema that an answer must fit; None for free text."""
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.json_schema is None:
        raise Refusal("json_schema is missing", param="response_format.json_schema")
    return wanted.json_schema.schema


def prompt_of(request: ChatRequest, tokenizer: Any) -> list[int]:
    """The conversation as the model's chat template renders it, in tokens.

    Raises:
        Refusal: there is no template, or it refuses the conversation.
    """
    if not tokenizer.chat_template:
        raise Refusal("this model has no chat template", param="model", code="no_chat_template")
    said = [_as_said(number, message) for number, message in enumerate(request.messages)]
    try:
        text = render(tokenizer, said, request.tools, generation_prompt=True)
    except Exception as error:  # a template may raise anything
        raise Refusal(f"the chat template refuses the conversation: {error}", param="messages") from error
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise Refusal("the conversation is empty", param="messages")
    return ids


def _as_said(number: int, message: Message) -> dict[str, Any]:
    content = message.content
    if isinstance(content, list):
        content = "".join(_text(part, f"messages.{number}.content") for part in content)
    fields = {"name": message.name, "tool_calls": message.tool_calls, "tool_call_id": message.tool_call_id}
    return {"role": message.role, "content": content or "", **fields}


def _text(part: Mapping[str, Any], where: str) -> str:
    text = part.get("text")
    if part.get("type") not in ("text", "input_text") or not isinstance(text, str):
        raise Refusal(f"this model reads text only, not {part.get('type')!r}", param=where)
    return text


def _biases(given: Mapping[str, float], vocabulary: int) -> dict[int, float]:
    found = {}
    for token, bias in given.items():
        if not token.isdecimal() or int(token) >= vocabulary:
            raise Refusal(f"{token!r} is no token id of this model", param="logit_bias")
        found[int(token)] = bias
    return found


def _plainly(text: str) -> str:
    return text.replace("`$.", "`").replace("`$`", "the body")


def _field(text: str) -> str | None:
    name = text.rpartition("`$.")[2].rpartition("`")[0] if "`$." in text else ""
    return name.partition("[")[0] or None


def most_tokens(request: ChatRequest, prompt: Sequence[int], longest: int) -> int:
    """After how many tokens an answer is cut.

    Raises:
        Refusal: the prompt fills the context, or leaves less of it than was asked for.
    """
    asked = request.max_completion_tokens or request.max_tokens
    left = longest - len(prompt)
    if left < 1:
        raise Refusal(
            f"the prompt has {len(prompt)} tokens, and the context of this model is {longest} tokens; shorten the prompt",
            param="messages",
            code="context_length_exceeded",
        )
    if asked is not None and asked > left:
        raise Refusal(
            f"the prompt has {len(prompt)} tokens and max_tokens is {asked}: together more than the context of {longest} "
            f"tokens; ask for at most {left}",
            param="max_tokens",
            code="context_length_exceeded",
        )
    return asked or left
