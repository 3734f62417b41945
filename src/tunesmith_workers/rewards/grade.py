"""Grades samples: the program behind the grader calls of the service.

Run as ``python -m tunesmith_workers.rewards.grade`` with the request on standard input. It asks no model: prompts for judges
come back as ``needs``, and a second call with their ``answers`` completes what waits for them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tunesmith_workers.process.calls import answer_and_exit
from tunesmith_workers.process.faults import BadRows
from tunesmith_workers.rewards.graders import Grader
from tunesmith_workers.rewards.grading import Graded, grade, questions
from tunesmith_workers.rewards.judge import Question, Reply
from tunesmith_workers.rewards.reading import read_grader
from tunesmith_workers.rewards.sample import Sample

MOST_SAMPLES = 1000


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. Without samples, the grader is only checked."""

    grader: Any
    samples: list[Sample] = []
    answers: dict[str, Reply] = {}
    """Replies of judges by the key of the prompt; ``{"refusal": ...}`` or ``{"error": ...}`` where there is none."""


def run(request: Request) -> dict[str, Any]:
    """One result for each sample, in their order, and the prompts that models have to answer first.

    Raises:
        BadGrader: the grader cannot be used.
        PackageMissing: it needs a package that is not installed.
        BadRows: there are too many samples.
    """
    if len(request.samples) > MOST_SAMPLES:
        raise BadRows(
            f"{len(request.samples):,} samples are too many", where="samples", mend=f"send {MOST_SAMPLES:,} at a time"
        )
    grader = read_grader(request.grader)
    needs: dict[str, Question] = {}
    results = [_result(grader, sample, request.answers, needs) for sample in request.samples]
    return {
        "name": grader.name,
        "type": request.grader["type"],
        "results": results,
        "needs": msgspec.to_builtins(list(needs.values())),
    }


def _result(grader: Grader, sample: Sample, answers: dict[str, Reply], needs: dict[str, Question]) -> dict[str, Any]:
    asked = [one for one in questions(grader, sample) if one.key not in answers]
    if asked:
        needs.update({one.key: one for one in asked})
        return {"reward": None, "sub_rewards": {}, "errors": None, "messages": [], "needs": [one.key for one in asked]}
    graded: Graded = grade(grader, sample, lambda one: answers[one.key])
    fields: dict[str, Any] = msgspec.to_builtins(graded)
    return {**fields, "needs": []}


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return run(msgspec.convert(request, Request))
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$.")
        raise BadRows(text, where=place.rstrip("`") or "grader", mend="see docs/graders.md") from None


if __name__ == "__main__":
    answer_and_exit(_answer)
