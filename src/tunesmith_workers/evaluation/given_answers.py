"""Scores answers that models gave elsewhere, as an evaluation scores those of models that it has loaded.

Two steps, because somebody else asks: the questions of the rows are written down, and then the answers are read. Metrics,
intervals and reports are those of every evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.evaluation.metrics import KINDS, chosen
from tunesmith_workers.evaluation.questions import Question, questions_of
from tunesmith_workers.evaluation.text_scores import require_packages
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.process.config import AnswersConfig, Folders
from tunesmith_workers.process.events import emit, emit_message
from tunesmith_workers.process.faults import BadConfig, BadRows

QUESTIONS = "questions.jsonl"
_UNSENT = frozenset({"weight"})
"""Words of training files that are no part of a request."""


class GivenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a model's answers; whatever else it says is passed over."""

    where: str
    answer: str | None
    """None: it gave none."""


_decode_answer = msgspec.json.Decoder(GivenAnswer).decode


def write_questions(config: AnswersConfig, folders: Folders) -> None:
    """Write what to ask, a line for each row: ``where``, ``messages``, ``tools``.

    Raises:
        WorkerFault: the metrics or the rows cannot be used.
    """
    require_packages(_metrics(config))
    questions = questions_of(read_rows(config.data_file, config.evaluation.limit), answers=True)
    folders.output.mkdir(parents=True, exist_ok=True)
    path = folders.output / QUESTIONS
    path.write_bytes(b"".join(msgspec.json.encode(_asked(one)) + b"\n" for one in questions))
    emit("result", questions=str(path), rows=len(questions))


def score(config: AnswersConfig, folders: Folders) -> None:
    """Score the answers of every model, and write the report.

    A row that one of them did not answer is left out for all: what is compared is the same rows.

    Raises:
        WorkerFault: the config, the rows or the answers cannot be used.
    """
    from tunesmith_workers.evaluation.one_model import ModelOutputs  # noqa: PLC0415  # imports torch: seconds
    from tunesmith_workers.evaluation.report import write_report  # noqa: PLC0415  # likewise
    from tunesmith_workers.evaluation.scored import scored_by  # noqa: PLC0415  # likewise

    names = _metrics(config)
    require_packages(names)
    questions = questions_of(read_rows(config.data_file, config.evaluation.limit), answers=True)
    given = [_answers(Path(one.answers)) for one in config.evaluation.models]
    answered = [one for one in questions if all(said.get(one.where) is not None for said in given)]
    if not answered:
        raise BadRows("there is no row that every model has answered", where=str(config.data_file))
    if len(answered) < len(questions):
        emit_message(
            f"{len(questions) - len(answered)} of {len(questions)} rows were not answered by every model: they are left out",
            level="warning",
        )
    scored = []
    for one, said in zip(config.evaluation.models, given, strict=True):
        outputs = ModelOutputs(
            label=one.label,
            base=one.model,
            prompts=tuple(question.text for question in answered),
            answers=tuple(said[question.where] or "" for question in answered),
        )
        scored.append(scored_by(outputs, names, answered, None))
    write_report(config, folders, answered, scored)


def _metrics(config: AnswersConfig) -> Sequence[str]:
    names = chosen(config.evaluation.metrics, has_judge=False)
    others = [name for name in names if KINDS[name].needs != "answers"]
    if others:
        raise BadConfig(
            f"{', '.join(others)} cannot be computed from answers alone",
            where="evaluation.metrics",
            mend=f"choose from {', '.join(name for name, kind in KINDS.items() if kind.needs == 'answers')}",
        )
    return names


def _answers(path: Path) -> dict[str, str | None]:
    """By the place of the row."""
    found = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            one = _decode_answer(line)
        except msgspec.DecodeError as error:
            raise BadRows(f"is no answer: {error}", where=f"{path}:{number}") from error
        found[one.where] = one.answer
    return found


def _asked(question: Question) -> dict[str, Any]:
    row = question.row
    messages: list[dict[str, Any]] = [{"role": "user", "content": row.prompt}]
    if row.messages:
        before = row.messages[: question.answered_at]
        messages = [{name: value for name, value in one.items() if name not in _UNSENT} for one in before]
    return {"where": question.where, "messages": messages, "tools": list(row.tools)}
