"""Behaviour 6 and what chat completions are asked for besides: streams on the wire, choices, stops, seeds, log probabilities, JSON, tools."""

from __future__ import annotations

import json
from typing import Any, Literal

import pydantic
import relied_on
from openai import BadRequestError, UnprocessableEntityError
from scene import Scene, refused
from sdk_parts import expect

_STORY = [{"role": "user", "content": "Tell me a story about a fox."}]


class Order(pydantic.BaseModel):
    """What is asked for as JSON; of few values, so that no answer can go on for ever."""

    item: Literal["mug", "lamp", "chair"]
    color: Literal["red", "blue"]
    paid: bool


def a_stream_on_the_wire(scene: Scene) -> None:
    """A stream is lines of `data: `, then usage with no choices, then [DONE]."""
    asked = {"model": scene.asked.model, "messages": _STORY, "max_tokens": 8, "temperature": 0, "stream": True}
    answer = scene.wire.send("POST", "/chat/completions", {**asked, "stream_options": {"include_usage": True}})
    expect(answer.status == 200, "it is 200", status=answer.status, body=answer.text)
    expect(
        answer.headers["content-type"].startswith("text/event-stream"), "it is an event stream", headers=answer.headers
    )
    expect(answer.headers.get("x-request-id"), "it has an x-request-id", headers=answer.headers)
    lines = [line for line in answer.text.split("\n\n") if line and not line.startswith(":")]
    expect(
        all(line.startswith("data: ") and "\n" not in line for line in lines),
        "each event is one data line",
        lines=lines,
    )
    expect(lines[-1] == "data: [DONE]" and answer.text.endswith("\n\n"), "the last is [DONE]", end=answer.text[-200:])
    chunks = [json.loads(line[6:]) for line in lines[:-1]]
    expect({chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}, "they are chunks", chunks=chunks[:2])
    expect(
        chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] > 0, "usage has no choices", last=chunks[-1]
    )
    plain = scene.wire.send("POST", "/chat/completions", asked).text
    bare = [json.loads(line[6:]) for line in plain.split("\n\n") if line.startswith("data: {")]
    expect(
        all(chunk["choices"] and not chunk.get("usage") for chunk in bare),
        "usage comes only if asked for",
        end=bare[-2:],
    )


def length(scene: Scene) -> None:
    """max_tokens and max_completion_tokens cut an answer, which says so."""
    for name in ("max_tokens", "max_completion_tokens"):
        came = asked(scene, **{name: 5})
        expect(came.choices[0].finish_reason == "length", f"{name} cuts it", came=came.to_dict())
        expect(came.usage.completion_tokens == 5, "after 5 tokens", came=came.to_dict())


def choices(scene: Scene) -> None:
    """n=2 gives two choices, streamed too."""
    came = asked(scene, n=2, max_tokens=8, temperature=1)
    expect([choice.index for choice in came.choices] == [0, 1], "there are two", came=relied_on.conforms(came))
    stream = scene.client.chat.completions.create(
        model=scene.asked.model, messages=_STORY, n=2, max_tokens=8, temperature=1, stream=True
    )
    indexes = {choice.index for chunk in stream for choice in chunk.choices}
    expect(indexes == {0, 1}, "the stream has both", indexes=indexes)


def stops(scene: Scene) -> None:
    """An answer ends before its stop text, given as a text or in a list."""
    warm(scene)
    whole = text(asked(scene, max_tokens=24))
    words = whole.split()
    expect(len(words) > 6, "an answer has some words", whole=whole)
    end = words[5]
    for stop in (end, ["no such text", end]):
        came = asked(scene, max_tokens=24, stop=stop)
        cut = whole.partition(end)[0]
        expect(text(came).strip() == cut.strip(), f"it ends before {stop!r}", came=text(came), cut=cut, whole=whole)
        expect(came.choices[0].finish_reason == "stop", "and says that it was stopped", came=came.to_dict())


def seeds(scene: Scene) -> None:
    """The same seed gives the same answer; other seeds give others."""
    warm(scene)
    drawn = [text(asked(scene, max_tokens=24, temperature=1, seed=seed)) for seed in (5, 5, 6, 7)]
    expect(drawn[0] == drawn[1], "seed 5 says the same twice", drawn=drawn)
    expect(len(set(drawn)) > 1, "not all seeds say the same", drawn=drawn)


def log_probabilities(scene: Scene) -> None:
    """An answer with logprobs has each token with its log probability, its bytes and the likeliest ones."""
    came = asked(scene, max_tokens=6, logprobs=True, top_logprobs=3)
    relied_on.conforms(came)
    tokens = (came.choices[0].logprobs and came.choices[0].logprobs.content) or []
    expect(len(tokens) == came.usage.completion_tokens, "each token has one", came=came.to_dict())
    for token in tokens:
        expect(
            token.logprob <= 0 and len(token.top_logprobs) == 3,
            "a log probability and three rivals",
            token=token.to_dict(),
        )
        best = max(one.logprob for one in token.top_logprobs)
        expect(abs(best - token.logprob) < 1e-4, "a greedy answer takes the likeliest", token=token.to_dict())
    said = b"".join(bytes(token.bytes or ()) for token in tokens).decode(errors="replace")
    expect(said.strip() == text(came).strip(), "the tokens' bytes are the answer", said=said, answer=text(came))


def json_by_schema(scene: Scene) -> None:
    """chat.completions.parse answers with an object of the class."""
    messages = [{"role": "user", "content": "One red mug, paid. As JSON."}]
    came = scene.client.chat.completions.parse(
        model=scene.asked.model, messages=messages, response_format=Order, max_tokens=96, temperature=0
    )
    parsed = came.choices[0].message.parsed
    expect(isinstance(parsed, Order), "it is parsed", content=came.choices[0].message.content)


def tools(scene: Scene) -> None:
    """Tools are passed on: an answer comes, with or without a call of one."""
    tool: Any = {
        "type": "function",
        "function": {
            "name": "ship",
            "description": "Ship an order.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    came = asked(scene, tools=[tool], tool_choice="auto", max_tokens=16)
    relied_on.a_completion(came, scene.asked.model)
    for call in came.choices[0].message.tool_calls or ():
        expect(
            call.id and call.function.name and isinstance(call.function.arguments, str),
            "a call is whole",
            came=came.to_dict(),
        )


def accepted(scene: Scene) -> None:
    """Penalties, users, parts of content and keys that nobody knows are accepted."""
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": "Tell me a story about a fox."}]}]
    came = scene.client.chat.completions.create(
        model=scene.asked.model,
        messages=parts,
        max_tokens=8,
        temperature=0,
        top_p=0.9,
        frequency_penalty=0.1,
        presence_penalty=0.1,
        user="somebody",
        store=False,
        metadata={"a": "b"},
        extra_body={"a_key_of_tomorrow": [1, 2]},
    )
    relied_on.a_completion(came, scene.asked.model)


def faulty_requests(scene: Scene) -> None:
    """What cannot be answered is refused with the field's name, also when a stream was asked for."""
    kinds = (BadRequestError, UnprocessableEntityError)
    for name, value in {"temperature": "hot", "max_tokens": -1, "n": 0, "top_logprobs": 10_000}.items():
        for stream in (False, True):
            error = refused(
                lambda name=name, value=value, stream=stream: asked(scene, **{name: value}, stream=stream), kinds
            )
            expect(name in f"{error.param} {error.message}", f"the refusal names {name}", body=error.body)
    long: Any = [{"role": "user", "content": "fox " * 20_000}]
    error = refused(lambda: scene.client.chat.completions.create(model=scene.asked.model, messages=long), kinds)
    expect("token" in error.message, "a prompt that is too long is refused by its tokens", message=error.message)


def warm(scene: Scene) -> None:
    """Has the engine keep what it computes of the prompt: in bfloat16, computing it anew can tip a choice between two likely tokens."""
    asked(scene, max_tokens=1)


def asked(scene: Scene, **options: Any) -> Any:
    given = {"temperature": 0, **options}
    return scene.client.chat.completions.create(model=scene.asked.model, messages=_STORY, **given)


def text(completion: Any) -> str:
    return completion.choices[0].message.content or ""


CHECKS = (
    a_stream_on_the_wire,
    length,
    choices,
    stops,
    seeds,
    log_probabilities,
    json_by_schema,
    tools,
    accepted,
    faulty_requests,
)
