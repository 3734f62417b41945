"""What an evaluation leaves: report.json, report.html and predictions.jsonl, and the events that tell of them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.contract.manifest import sha256_of_data
from tunesmith_workers.data.reader import data_files
from tunesmith_workers.evaluation.comparison import RESAMPLES, SEED, Difference, differences, intervals
from tunesmith_workers.evaluation.metrics import kind_of
from tunesmith_workers.evaluation.page import page
from tunesmith_workers.evaluation.questions import Question
from tunesmith_workers.evaluation.samples import samples_of
from tunesmith_workers.evaluation.scored import Scored
from tunesmith_workers.evaluation.text_scores import correct
from tunesmith_workers.process.config import AnswersConfig, EvaluateConfig, Folders
from tunesmith_workers.process.events import emit, emit_message, log

_PACKAGES = ("tunesmith", "torch", "transformers", "peft", "rouge-score", "sacrebleu")


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What another model made of a row."""

    model: str
    predicted: str | None = None
    correct: bool | None = None
    scores: dict[str, float]
    judge: str | None = None


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of predictions.jsonl: what the first model made of a row, and the others after it."""

    where: str
    prompt: str | None = None
    expected: str
    predicted: str | None = None
    correct: bool | None = None
    scores: dict[str, float]
    """What the row is worth by each metric."""
    judge: str | None = None
    """The judge's own words."""
    others: list[Answer] = []


def write_report(
    config: EvaluateConfig | AnswersConfig, folders: Folders, questions: Sequence[Question], scored: Sequence[Scored]
) -> None:
    """Write the three files, and tell of them. The first model is the one that others are compared with."""
    first, *others = scored
    compared = [one for other in others for one in _compared(first, other)]
    report = _report(config, len(questions), scored, compared)
    for one in compared:
        emit_message(f"{one.model} beside {one.baseline}, {one.metric}: {one.verdict}")
    folders.output.mkdir(parents=True, exist_ok=True)
    lines = b"".join(msgspec.json.encode(_prediction(scored, at, one)) + b"\n" for at, one in enumerate(questions))
    _write(folders.output / "predictions.jsonl", lines, "predictions")
    shown = page(report, samples_of(questions, scored))
    _write(folders.output / "report.html", shown.encode(errors="replace"), "report_page")
    path = folders.output / "report.json"
    _write(path, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n", "report")
    metrics = first.metrics()
    log("scores: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    emit("metrics", **metrics)
    emit(
        "result",
        metrics={**metrics, "rows": len(questions)},
        report=str(path),
        comparisons=[msgspec.to_builtins(one) for one in compared] or None,
    )


def _compared(first: Scored, other: Scored) -> list[Difference]:
    return differences(first.label, other.label, first.measured, other.measured)


def _report(
    config: EvaluateConfig | AnswersConfig, rows: int, scored: Sequence[Scored], compared: Sequence[Difference]
) -> dict[str, Any]:
    return {
        "model": config.base,
        "data": str(config.data_file),
        "data_sha256": sha256_of_data(data_files(config.data_file)),
        "rows": rows,
        "metrics": scored[0].metrics(),
        "models": [_model(one) for one in scored],
        "comparisons": [msgspec.to_builtins(one) for one in compared],
        "intervals": {"level": 0.95, "method": "paired bootstrap over rows", "resamples": RESAMPLES, "seed": SEED},
        "config": msgspec.to_builtins(config),
        "versions": _versions(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _model(scored: Scored) -> dict[str, Any]:
    found = intervals(scored.measured)
    return {
        "model": scored.outputs.base,
        "label": scored.label,
        "metrics": {
            one.name: {
                "value": one.overall if one.rows else None,
                "low": interval.low if interval else None,
                "high": interval.high if interval else None,
                "rows": one.rows,
                "lower_is_better": kind_of(one.name).lower_is_better,
            }
            for one, interval in zip(scored.measured, found, strict=True)
        },
        "scored_tokens": sum(scored.outputs.tokens.tokens) if scored.outputs.tokens else None,
    }


def _prediction(scored: Sequence[Scored], place: int, question: Question) -> Prediction:
    first, *others = scored
    answer = _answer(first, place, question)
    return Prediction(
        where=question.where,
        prompt=first.outputs.prompts[place] if first.outputs.prompts else None,
        expected=question.expected,
        predicted=answer.predicted,
        correct=answer.correct,
        scores=answer.scores,
        judge=answer.judge,
        others=[_answer(other, place, question) for other in others],
    )


def _answer(scored: Scored, place: int, question: Question) -> Answer:
    said = scored.outputs.answers[place] if scored.outputs.answers else None
    return Answer(
        model=scored.label,
        predicted=said,
        correct=None if said is None else correct(question.expected, said),
        scores={name: round(value, 6) for name, value in scored.of_row(place).items()},
        judge=scored.grades.replies[place] if scored.grades else None,
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _write(path: Path, content: bytes, kind: str) -> None:
    path.write_bytes(content)
    emit("artifact", path=str(path), kind=kind, bytes=len(content))
