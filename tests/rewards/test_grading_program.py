"""The program that the service calls: one request on its input, one result or refusal on its output."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from grader_parts import JSON_MATCH, MULTI, REGEX, SCORE_MODEL, SIMILARITY, STRING_CHECK, changed

from support.server import clean_environment
from tunesmith.contract.events import read_line
from tunesmith.errors import InvalidInput
from tunesmith.runner import WorkerCalls

PROGRAM = "tunesmith_workers.rewards.grade"
ERRORS = {
    "formula_parse_error",
    "invalid_variable_error",
    "model_grader_parse_error",
    "model_grader_refusal_error",
    "model_grader_server_error",
    "model_grader_server_error_details",
    "other_error",
    "python_grader_runtime_error",
    "python_grader_runtime_error_details",
    "python_grader_server_error",
    "python_grader_server_error_type",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def call(request: dict[str, Any]) -> tuple[int, str, dict[str, Any]]:
    """The exit code, and the kind and the fields of what the program says; its input stays open, as the service leaves it."""
    program = subprocess.Popen(
        [sys.executable, "-m", PROGRAM],
        env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with program:
        try:
            program.stdin.write(json.dumps(request).encode() + b"\n")
            program.stdin.flush()
            [event] = [found for line in program.stdout if (found := read_line(line))]
            return program.wait(30), *event
        finally:
            program.kill()


def result(request: dict[str, Any]) -> dict[str, Any]:
    code, kind, fields = call(request)
    assert (code, kind) == (0, "result"), fields
    return fields


def sample(text: str, **item: Any) -> dict[str, Any]:
    return {"output_text": text, "item": item}


def test_samples_are_graded_in_their_order():
    """With the errors of OpenAI's response beside each reward."""
    grader = changed(
        MULTI, graders={**MULTI["graders"], "order": JSON_MATCH}, calculate_output="(same + dated + order) / 3"
    )
    found = result(
        {
            "grader": grader,
            "samples": [sample("2026-12-01", reference="2026-12-01"), sample('{"a":1}', reference={"a": 1})],
        }
    )
    assert (found["name"], found["type"], found["needs"]) == ("both", "multi", [])
    first, second = found["results"]
    assert first["errors"].keys() == ERRORS
    assert first["errors"]["sample_parse_error"] is True  # a date is no JSON
    assert first["sub_rewards"] == {"same": 1.0, "dated": 1.0, "order": None}
    assert second["reward"] == pytest.approx(2 / 3)
    assert not any(second["errors"].values())
    assert second["messages"] == []


def test_a_grader_alone_is_only_checked():
    """Which is what validating one asks for."""
    assert result({"grader": REGEX})["results"] == []


def test_judges_are_asked_by_the_caller_between_two_calls():
    """The first says what has to be answered, each prompt once; the second has the answers and everything else."""
    grader = changed(MULTI, graders={"judge": SCORE_MODEL, "same": STRING_CHECK}, calculate_output="judge * same")
    request = {"grader": grader, "samples": [sample(text, reference="x") for text in ("x", "y", "x")]}
    first = result(request)
    assert [one["reward"] for one in first["results"]] == [None, None, None]
    assert len(first["needs"]) == 2
    assert {need["model"] for need in first["needs"]} == {"judge-1"}
    assert first["needs"][0]["messages"][1] == {"role": "user", "content": "Grade x beside x."}
    assert first["results"][0]["needs"] == first["results"][2]["needs"] == [first["needs"][0]["key"]]

    replies = ["0.5", {"error": "503"}]
    answers = {need["key"]: reply for need, reply in zip(first["needs"], replies, strict=True)}
    second = result({**request, "answers": answers})
    assert second["needs"] == []
    assert [one["reward"] for one in second["results"]] == [0.5, 0.0, 0.5]
    assert [one["errors"]["model_grader_server_error"] for one in second["results"]] == [False, True, False]
    assert second["results"][1]["sub_rewards"] == {"judge": None, "same": 0.0}


def test_a_grader_that_cannot_be_used_is_refused_with_every_fault():
    """In the words that the service passes on."""
    grader = changed(MULTI, graders={"x": changed(REGEX, pattern="(")}, calculate_output="y")
    code, kind, fields = call({"grader": grader, "samples": [sample("x")]})
    assert (code, kind, fields["level"]) == (1, "message", "error")
    assert [fault["where"] for fault in fields["faults"]] == ["grader.graders.x.pattern", "grader.calculate_output"]
    assert fields["where"] == "grader.graders.x.pattern"
    assert "cause" not in fields


@pytest.mark.anyio
async def test_the_service_learns_every_fault_and_every_reward():
    """Through the calls that it has for worker programs."""
    calls = WorkerCalls()
    answer = await calls.call(PROGRAM, {"grader": STRING_CHECK, "samples": [sample("x", reference="x")]}, seconds=60)
    assert answer["results"][0]["reward"] == 1.0
    with pytest.raises(InvalidInput) as refused:
        await calls.call(PROGRAM, {"grader": changed(STRING_CHECK, operation="is", input=None)}, seconds=60)
    assert [fault.where for fault in refused.value.faults] == ["grader.input", "grader.operation"]
    assert all(fault.mend for fault in refused.value.faults)
    assert refused.value.where == "grader.input"


@pytest.mark.parametrize(
    ("request_", "where", "words"),
    [
        ({"samples": []}, "grader", "missing required field `grader`"),
        ({"grader": REGEX, "samples": [{"item": {}}]}, "samples[0]", "missing required field `output_text`"),
        ({"grader": REGEX, "samples": [{"output_text": "x", "item": 3}]}, "samples[0].item", "got `int`"),
        ({"grader": REGEX, "samples": [sample("x")] * 1001}, "samples", "1,001 samples are too many"),
        ({"grader": REGEX, "answers": {"k": 3}}, "answers[...]", "got `int`"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(request_, where, words):
    """By its field."""
    code, kind, fields = call(request_)
    assert (code, kind, fields["where"]) == (1, "message", where)
    assert words in fields["text"]
    assert "cause" not in fields


def test_a_hostile_request_is_answered():
    """Formulas without end, patterns without end, and texts that look for a slow way."""
    graders = {
        "slow": changed(REGEX, pattern=r"(a+)+$"),
        "fence": changed(JSON_MATCH, reference="{}"),
        "alike": SIMILARITY,
    }
    grader = changed(MULTI, graders=graders, calculate_output="9**9**9 + slow + fence + alike")
    texts = ["a" * 50_000 + "!", "```" + "\n" * 90_000, "[" * 90_000, "{" * 90_000]
    found = result({"grader": grader, "samples": [sample(text, reference=text) for text in texts]})
    assert [one["reward"] for one in found["results"]] == [0.0] * 4
    assert found["results"][0]["errors"]["unresponsive_reward_error"]
    assert [one["errors"]["formula_parse_error"] for one in found["results"]] == [False, True, True, True]
    assert [one["sub_rewards"]["fence"] for one in found["results"]] == [0.0] * 4


def test_grading_loads_no_training_library():
    """A call starts in a moment, and every metric included it needs no torch."""
    graders = [changed(SIMILARITY, evaluation_metric=name) for name in ("bleu", "gleu", "meteor", "rouge_1", "rouge_l")]
    code = (
        "import json, sys\n"
        "import tunesmith_workers.rewards.grade as program\n"
        "for grader in json.loads(sys.argv[1]):\n"
        "    request = {'grader': grader, 'samples': [{'output_text': 'a b', 'item': {'reference': 'a c'}}]}\n"
        "    program._answer(request)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([*graders, STRING_CHECK, REGEX])],
        env=clean_environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert not set(done.stdout.split()) & {"torch", "transformers", "datasets", "accelerate", "peft"}
