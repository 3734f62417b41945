"""The check of OpenAI's training files: what is good there is good here, and what is wrong has its line and field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from data_parts import GOOD, SHAPES, TURNS, call, everything, processed, verdict, write

CALL = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}
SUPERVISED = ("messages", "conversations", "instruction", "prompt_completion")
ASKED = [{"role": "user", "content": "Hello, how cold is it?"}]
PREFERENCE = {
    "input": {
        "messages": ASKED,
        "tools": [{"type": "function", "function": {"name": "now"}}],
        "parallel_tool_calls": True,
    },
    "preferred_output": [{"role": "assistant", "content": "Rather cold."}],
    "non_preferred_output": [{"role": "assistant", "content": "It is not particularly cold."}],
}
REINFORCEMENT = {"messages": ASKED, "reference_answer": {"degrees": 3}}


def answered(**answer: Any) -> dict[str, Any]:
    return {"messages": [*ASKED, {"role": "assistant", **answer}]}


def calling(function: Any) -> dict[str, Any]:
    return answered(content=None, tool_calls=[{**CALL, "function": function}])


@pytest.mark.parametrize(
    "row",
    [
        answered(content="a", weight=1),
        answered(content="a", weight=None, name="otto", refusal=None, audio=None, tool_calls=None, function_call=None),
        answered(tool_calls=[CALL]),
        answered(content=None, function_call={"name": "now", "arguments": '{"a": [1]}'}),
        answered(refusal="I won't."),
        calling({"name": "now", "arguments": ""}),
        calling({"name": "now", "arguments": {"a": 1}}),
        {
            "messages": [*ASKED, {"role": "function", "name": "now", "content": None}, TURNS[1]],
            "functions": [{"name": "now"}],
        },
        {"messages": [{"role": "developer", "content": "be brief"}, *TURNS], "parallel_tool_calls": False, "more": {}},
        {"messages": [{**TURNS[0], "content": [{"type": "text", "text": "a"}]}, TURNS[1]], "tools": []},
    ],
)
def test_what_openai_takes_is_valid(tmp_path, row):
    """Calls in both forms, nulls beside them, names, refusals, weights, parts, and keys that nobody knows."""
    found = verdict(write(tmp_path / "a.jsonl", [row]), shapes=SUPERVISED)
    assert found["valid"], found["errors"]


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        (answered(content="a", weight=0), "messages", "has weight 0 on every assistant message"),
        (
            answered(content="a", weight=0.5),
            "messages[1].weight",
            "must be 0 (read, not trained) or 1 (trained), not 0.5",
        ),
        (answered(content="a", weight=True), "messages[1].weight", "not bool"),
        (answered(content="a", weight="1"), "messages[1].weight", "not str"),
        (answered(content="a", weight=2), "messages[1].weight", "not 2"),
        (answered(content="a", weight=10**400), "messages[1].weight", "not 10000000000000000000"),
        (answered(), "messages[1].content", "not missing"),
        (answered(refusal=3), "messages[1].content", "not int"),
        (
            answered(content=[{"type": "audio", "id": "x"}]),
            "messages[1].content[0]",
            "is 'audio', and training is on text",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
                    TURNS[1],
                ]
            },
            "messages[0].content[1]",
            "is 'image_url'",
        ),
        (answered(content=[{"type": "text"}]), "messages[1].content[0]", "not missing"),
        (answered(content=["a"]), "messages[1].content", "not list"),
        (answered(tool_calls={}), "messages[1].content", "not missing"),
        (answered(tool_calls="now"), "messages[1].tool_calls", "must be a list"),
        (answered(tool_calls=["now"]), "messages[1].tool_calls[0]", "must be an object"),
        (answered(tool_calls=[{"type": "custom"}]), "messages[1].tool_calls[0].type", "must be function"),
        (calling("now"), "messages[1].tool_calls[0].function", "must be an object with name and arguments"),
        (calling({"arguments": "{}"}), "messages[1].tool_calls[0].function.name", "must be the function's name"),
        (
            calling({"name": "now", "arguments": "{'a': 1}"}),
            "messages[1].tool_calls[0].function.arguments",
            "must be a JSON object, as text",
        ),
        (calling({"name": "now", "arguments": "[1]"}), "messages[1].tool_calls[0].function.arguments", "JSON object"),
        (
            calling({"name": "now", "arguments": "[" * 5000}),
            "messages[1].tool_calls[0].function.arguments",
            "JSON object",
        ),
        (
            answered(function_call={"name": "now", "arguments": "no"}),
            "messages[1].function_call.arguments",
            "must be a JSON object",
        ),
        ({**GOOD, "tools": ["now"]}, "tools[0]", "must be an object"),
        ({**GOOD, "functions": 3}, "functions", "must be a list"),
    ],
)
def test_what_cannot_be_trained_has_its_line_and_field(tmp_path, row, field, words):
    """Among good rows that are read the fast way."""
    found = verdict(write(tmp_path / "a.jsonl", [GOOD, GOOD, row, GOOD]))
    [error] = found["errors"]
    assert (error["line"], error["field"]) == (3, field)
    assert words in error["message"]
    assert found["valid_count"] == 3


def test_preferences_in_openais_form_are_preferences(tmp_path):
    """They count as such, and processing writes them as the other preferences, with their tools and all that is beside them."""
    path = write(tmp_path / "a.jsonl", [{**PREFERENCE, "id": 7}, SHAPES["preference"]])
    found = verdict(path, shapes=["preference"])
    assert found["valid"], found["errors"]
    assert found["stats"]["shapes"] == {"preference": 2}
    report = processed(path, tmp_path / "out", (1, 0, 0), shuffle=False)
    assert everything(tmp_path / "out") == [
        {
            "prompt": ASKED,
            "chosen": PREFERENCE["preferred_output"],
            "rejected": PREFERENCE["non_preferred_output"],
            "tools": PREFERENCE["input"]["tools"],
            "parallel_tool_calls": True,
            "id": 7,
        },
        SHAPES["preference"],
    ]
    assert report["changes"] == {"fields_renamed": 1}
    assert verdict(tmp_path / "out/train.json")["valid"]


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"input": None}, "input", "must be an object with messages"),
        ({"input": {"messages": []}}, "input.messages", "at least one message"),
        ({"input": {"messages": ASKED, "tools": 3}}, "input.tools", "must be a list"),
        ({"preferred_output": []}, "preferred_output", "at least one message"),
        ({"preferred_output": ASKED}, "preferred_output[0]", "must be the assistant's answer"),
        ({"non_preferred_output": None}, "non_preferred_output", "at least one message"),
        ({"non_preferred_output": PREFERENCE["preferred_output"]}, None, "nothing to prefer"),
        (
            {"input": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}},
            "input.messages[0].content[0]",
            "training is on text",
        ),
    ],
)
def test_what_is_wrong_with_a_preference_has_openais_names(tmp_path, changed, field, words):
    """Whoever wrote the file finds the field in it."""
    found = verdict(write(tmp_path / "a.jsonl", [PREFERENCE, {**PREFERENCE, **changed}]))
    [error] = found["errors"]
    assert (error["line"], error["field"]) == (2, field)
    assert words in error["message"]


def test_messages_to_be_answered_are_prompts_where_prompts_are_taken(tmp_path):
    """A file for reinforcement is good for that, and a supervised one that lacks an answer is not good for training."""
    path = write(tmp_path / "a.jsonl", [REINFORCEMENT, GOOD])
    for shapes in (None, SUPERVISED):
        [error] = verdict(path, shapes=shapes)["errors"]
        assert (error["line"], error["field"]) == (1, "messages")
        assert "has no assistant message" in error["message"]
    [error] = verdict(path, shapes=["prompt"])["errors"]
    assert (error["line"], error["field"]) == (2, "messages[1]")
    assert "the last message must be one to be answered" in error["message"]
    both = verdict(path, shapes=["prompt", "messages"])
    assert (both["valid"], both["stats"]["shapes"]) == (True, {"prompt": 1, "messages": 1})
    assert verdict(write(tmp_path / "b.jsonl", [SHAPES["prompt"]]), shapes=["prompt"])["valid"]


def test_a_conversation_that_goes_on_is_a_prompt(tmp_path):
    """Answers before the last question are examples to the model."""
    row = {"messages": [*TURNS, {"role": "system", "content": "one more"}], "reference_answer": "x"}
    assert verdict(write(tmp_path / "a.jsonl", [row]), shapes=["prompt"])["stats"]["shapes"] == {"prompt": 1}


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_other_shapes_are_faults_where_shapes_are_named(tmp_path, shape):
    """Each with its line; rows of the named shape are good. The worker program says what the function says."""
    path = write(tmp_path / "a.jsonl", list(SHAPES.values()))
    found, _ = call("tunesmith_workers.data.validate", {"file": str(path), "shapes": [shape]})
    assert {name: value for name, value in found.items() if name != "at"} == verdict(path, shapes=[shape])
    assert found["stats"]["shapes"] == {shape: 1}
    assert [error["line"] for error in found["errors"]] == [
        line for line, name in enumerate(SHAPES, 1) if name != shape
    ]
    assert all("used here" in error["message"] or shape == "prompt" for error in found["errors"])


def test_rows_are_processed_as_openai_writes_them(tmp_path):
    """Weights and calls go out as they came in, arguments as text; the older form becomes the newer, and is counted."""
    old = {
        "messages": [*ASKED, {"role": "assistant", "content": None, "function_call": CALL["function"]}],
        "functions": [{"name": "now"}],
    }
    weighted = {"messages": [*ASKED, {**TURNS[1], "weight": 0}, *TURNS], "parallel_tool_calls": False}
    path = write(tmp_path / "a.jsonl", [old, weighted])
    report = processed(path, tmp_path / "out", (1, 0, 0), shuffle=False)
    new = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL["function"]}]}
    assert everything(tmp_path / "out") == [
        {"messages": [*ASKED, new], "tools": [{"type": "function", "function": {"name": "now"}}]},
        weighted,
    ]
    assert report["changes"] == {"functions_renamed": 2}
    assert json.loads(everything(tmp_path / "out")[0]["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {}
