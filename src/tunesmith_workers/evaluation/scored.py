"""All metrics of one model, from what was outputs of it and what a judge said of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tunesmith_workers.evaluation.judging import Grades, judge_metrics
from tunesmith_workers.evaluation.measured import Measured
from tunesmith_workers.evaluation.one_model import ModelOutputs
from tunesmith_workers.evaluation.questions import Question
from tunesmith_workers.evaluation.text_scores import text_metrics
from tunesmith_workers.evaluation.token_scores import token_metrics


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """One model with its metrics, in the order that they were asked for."""

    outputs: ModelOutputs
    measured: tuple[Measured, ...]
    grades: Grades | None = None

    @property
    def label(self) -> str:
        return self.outputs.label

    def metrics(self) -> dict[str, float]:
        """Each metric over all rows; one that no row could be measured for is left out."""
        return {one.name: one.overall for one in self.measured if one.rows}

    def of_row(self, place: int) -> dict[str, float]:
        """What one row is worth by each metric."""
        found = {one.name: one.by_row[place] for one in self.measured}
        return {name: value for name, value in found.items() if value is not None}


def scored_by(
    outputs: ModelOutputs, names: Sequence[str], questions: Sequence[Question], grades: Grades | None
) -> Scored:
    """Compute every metric among ``names``."""
    found: list[Measured] = []
    if outputs.tokens is not None:
        found += token_metrics(names, outputs.tokens)
    if outputs.answers:
        found += text_metrics(names, [question.expected for question in questions], outputs.answers)
    if grades is not None:
        found += judge_metrics(grades)
    order = {name: place for place, name in enumerate(names)}
    last = len(order)
    beside = {"json_valid": "json_match", "json_wrapped": "json_match", "judge_unparsed": "judge_score"}
    found.sort(key=lambda one: order.get(beside.get(one.name, one.name), last))
    return Scored(outputs=outputs, measured=tuple(found), grades=grades)
