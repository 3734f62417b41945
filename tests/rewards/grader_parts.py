"""What the tests of graders share: one good grader of each type, and ways to read and ask them."""

from __future__ import annotations

from typing import Any

from tunesmith_workers.rewards.fields import BadGrader
from tunesmith_workers.rewards.grading import Graded, grade, no_judge
from tunesmith_workers.rewards.judge import Ask
from tunesmith_workers.rewards.reading import read_grader
from tunesmith_workers.rewards.sample import Sample

TEXT, REFERENCE = "{{ sample.output_text }}", "{{ item.reference }}"
STRING_CHECK = {"type": "string_check", "name": "same", "input": TEXT, "reference": REFERENCE, "operation": "eq"}
SIMILARITY = {
    "type": "text_similarity",
    "name": "alike",
    "input": TEXT,
    "reference": REFERENCE,
    "evaluation_metric": "fuzzy_match",
}
JSON_MATCH = {"type": "json_match", "name": "order", "reference": REFERENCE}
REGEX = {"type": "regex", "name": "dated", "pattern": r"\d{4}-\d{2}-\d{2}"}
SCORE_MODEL = {
    "type": "score_model",
    "name": "judge",
    "model": "judge-1",
    "input": [
        {"role": "system", "content": "Answer with a number."},
        {"role": "user", "content": f"Grade {TEXT} beside {REFERENCE}."},
    ],
}
MULTI = {
    "type": "multi",
    "name": "both",
    "graders": {"same": STRING_CHECK, "dated": REGEX},
    "calculate_output": "0.75 * same + 0.25 * dated",
}
EVERY = [STRING_CHECK, SIMILARITY, JSON_MATCH, REGEX, SCORE_MODEL, MULTI]


def changed(grader: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """With other fields; those that are None are left out."""
    return {name: value for name, value in {**grader, **fields}.items() if value is not None}


def graded(grader: dict[str, Any], text: str, reference: Any = "", ask: Ask = no_judge) -> Graded:
    return grade(read_grader(grader), Sample(output_text=text, item={"reference": reference}), ask)


def reward(grader: dict[str, Any], text: str, reference: Any = "", ask: Ask = no_judge) -> float:
    """Of a sample that has a score."""
    found = graded(grader, text, reference, ask)
    assert not found.failed, found.messages
    return found.reward


def similarity_of(metric: str, text: str, reference: str) -> float:
    return reward(changed(SIMILARITY, evaluation_metric=metric), text, reference)


def faults_of(value: Any) -> dict[str, str]:
    """What is wrong with a grader, by field."""
    try:
        read_grader(value)
    except BadGrader as bad:
        return {fault.where: f"{fault.message}; {fault.mend}" for fault in bad.faults}
    return {}


def flags_of(found: Graded) -> set[str]:
    return {name for name in found.errors.__struct_fields__ if getattr(found.errors, name) is True}
