"""Rows worth looking at: the best and the worst of the first model, and where each other model differs most from it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import msgspec

from tunesmith_workers.evaluation.measured import Measured
from tunesmith_workers.evaluation.metrics import kind_of
from tunesmith_workers.evaluation.questions import Question
from tunesmith_workers.evaluation.scored import Scored

_EACH = 5
_ORDER_BY = (
    "judge_score",
    "json_match",
    "rougeL",
    "chrf",
    "rouge1",
    "rouge2",
    "bleu",
    "exact_match",
    "loss",
    "perplexity",
)
"""The metrics to order rows by: the first that there is."""
_LOOKED_AT = 300
"""Characters."""


class ModelAnswer(msgspec.Struct, frozen=True):
    """One model's part in a sample."""

    label: str
    answer: str | None
    scores: dict[str, float]


class Sample(msgspec.Struct, frozen=True):
    """One row with what all models made of it."""

    where: str
    question: str
    expected: str
    said: tuple[ModelAnswer, ...]


class Chosen(msgspec.Struct, frozen=True):
    """Rows that were chosen for the same reason."""

    title: str
    samples: tuple[Sample, ...]


def samples_of(questions: Sequence[Question], scored: Sequence[Scored]) -> list[Chosen]:
    """The rows to show, in groups; a group without any is left out."""
    first, *others = scored
    metric = next((name for name in _ORDER_BY if any(one.name == name and one.rows for one in first.measured)), None)
    if metric is None:
        return []
    worth = _worth(first, metric, questions)
    ordered = sorted(worth, key=lambda at: worth[at], reverse=True)
    groups = [(f"Best rows by {metric}", ordered[:_EACH]), (f"Worst rows by {metric}", ordered[_EACH:][::-1][:_EACH])]
    for other in others:
        theirs = _worth(other, metric, questions)
        gains = {at: theirs[at] - worth[at] for at in worth if at in theirs and theirs[at] != worth[at]}
        ordered = sorted(gains, key=lambda at: gains[at], reverse=True)
        groups += [
            (f"Where {other.label} gains most on {metric}", [at for at in ordered if gains[at] > 0][:_EACH]),
            (f"Where {other.label} loses most on {metric}", [at for at in ordered[::-1] if gains[at] < 0][:_EACH]),
        ]
    return [Chosen(title, tuple(_sample(at, questions, scored) for at in places)) for title, places in groups if places]


def _worth(scored: Scored, metric: str, questions: Sequence[Question]) -> dict[int, float]:
    """Of each row that was measured, more being better. Among equals the closer text is better, if only just."""
    measured: Measured | None = next((one for one in scored.measured if one.name == metric), None)
    if measured is None:
        return {}
    sign = kind_of(metric).sign
    return {
        at: value * sign + 1e-6 * _closeness(scored, at, questions)
        for at, value in enumerate(measured.by_row)
        if value is not None
    }


def _closeness(scored: Scored, at: int, questions: Sequence[Question]) -> float:
    if not scored.outputs.answers:
        return 0.0
    texts = questions[at].expected[:_LOOKED_AT], scored.outputs.answers[at][:_LOOKED_AT]
    return difflib.SequenceMatcher(None, *texts).quick_ratio()


def _sample(at: int, questions: Sequence[Question], scored: Sequence[Scored]) -> Sample:
    question = questions[at]
    said = tuple(
        ModelAnswer(one.label, one.outputs.answers[at] if one.outputs.answers else None, one.of_row(at))
        for one in scored
    )
    return Sample(question.where, question.text, question.expected, said)
