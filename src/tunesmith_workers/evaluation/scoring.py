"""Scores one model or several on the same rows: what is asked of whom, in which order. The metrics are in modules beside it.

Models are loaded one after the other; then a judge grades the answers, if one is named; then everything is written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from tunesmith_workers.evaluation.metrics import Needs, chosen, needs
from tunesmith_workers.evaluation.progress import Progress
from tunesmith_workers.evaluation.questions import questions_of
from tunesmith_workers.evaluation.text_scores import require_packages
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.process.config import EvaluateConfig, Folders
from tunesmith_workers.process.events import emit, emit_message


def evaluate(config: EvaluateConfig, folders: Folders) -> None:
    """Score as the config says.

    Raises:
        WorkerFault: the config, the rows or a model cannot be used.
    """
    from tunesmith_workers.evaluation.judging import check_judge, judge_all  # noqa: PLC0415  # imports torch: seconds
    from tunesmith_workers.evaluation.one_model import run_model  # noqa: PLC0415  # likewise
    from tunesmith_workers.evaluation.report import write_report  # noqa: PLC0415  # likewise
    from tunesmith_workers.evaluation.scored import scored_by  # noqa: PLC0415  # likewise
    from tunesmith_workers.process.quiet import quiet  # noqa: PLC0415  # likewise

    judge = check_judge(config.evaluation.judge)
    names = chosen(config.evaluation.metrics, has_judge=judge is not None)
    require_packages(names)
    quiet()
    emit("progress", phase="loading_model")
    rows = read_rows(config.data_file, config.evaluation.limit)
    wanted = needs(names)
    questions = questions_of(rows, answers=bool(wanted & {"answers", "judge"}))
    bases = (config.base, *config.evaluation.compare)
    _refuse_absent([*bases[1:], *([judge.model] if judge is not None and judge.model else [])])
    progress = Progress(len(bases) * len(rows) * _passes(wanted))
    outputs = []
    for base, label in zip(bases, labels_of(bases), strict=True):
        emit_message(f"scoring {base} on {len(rows)} rows of {config.data_file}")
        outputs.append(run_model(base, label, questions, config, wanted, progress))
    grades = judge_all(judge, outputs, questions, config, progress) if judge is not None else []
    emit("progress", phase="reporting")
    scored = [scored_by(one, names, questions, grades[place] if grades else None) for place, one in enumerate(outputs)]
    write_report(config, folders, questions, scored)


def labels_of(bases: Sequence[str]) -> list[str]:
    """A short name for each model, no two the same: a run's id, a checkpoint of a run, a folder's name or a hub id."""
    labels: list[str] = []
    for base in bases:
        label, number = _label(base), 2
        while label in labels:
            label, number = f"{_label(base)} ({number})", number + 1
        labels.append(label)
    return labels


def _refuse_absent(bases: Sequence[str]) -> None:
    """Before the first model has answered for hours. Raises ModelUnavailable."""
    from tunesmith_workers.models.loading import load_tokenizer  # noqa: PLC0415  # imports torch: seconds

    for base in bases:
        load_tokenizer(base)


def _label(base: str) -> str:
    match PurePath(base).parts:
        case (*_, "runs", run, "output"):
            return run
        case (*_, "runs", run, "checkpoints", checkpoint):
            return f"{run}/{checkpoint}"
        case ("/" | ".." | "~", *_, name):
            return name
        case _:
            return base


def _passes(wanted: frozenset[Needs]) -> int:
    """How often something is done with a row of each model."""
    return len(wanted | {"answers"} if "judge" in wanted else wanted)
