"""Metrics of answers: how close the text of each is to the expected one. Nothing here runs a model.

ROUGE is that of rouge-score, BLEU and chrF are those of sacrebleu, on its scale from 0 to 100; they are imported when asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tunesmith_workers.evaluation.measured import Measured, Numbers, mean_of
from tunesmith_workers.process.events import emit_message
from tunesmith_workers.rewards.json_match import JsonScore, read_json, score_json
from tunesmith_workers.rewards.words import Rouge, bleu_scorer, load_library

_ROUGE = ("rouge1", "rouge2", "rougeL")
_SACREBLEU = ("bleu", "chrf")
_WHERE = "evaluation.metrics"


def text_metrics(names: Sequence[str], expected: Sequence[str], answers: Sequence[str]) -> Iterator[Measured]:
    """The metrics among ``names`` that compare answers with what was expected, in the order of the names.

    Raises:
        PackageMissing: a metric needs a package that is not installed.
    """
    rouge = _rouge([name for name in names if name in _ROUGE], expected, answers)
    for name in names:
        if name == "exact_match":
            yield mean_of(name, [float(correct(*pair)) for pair in zip(expected, answers, strict=True)])
        elif name == "json_match":
            yield from _json(expected, answers)
        elif name in _ROUGE:
            yield rouge[name]
        elif name in _SACREBLEU:
            yield _sacrebleu(name, expected, answers)


def require_packages(names: Sequence[str]) -> None:
    """Refuse before a model is loaded what could not be computed after it has answered. Raises PackageMissing."""
    for name in names:
        if name in _ROUGE:
            load_library("rouge_score.rouge_scorer", name, where=_WHERE)
        elif name in _SACREBLEU:
            load_library("sacrebleu.metrics", name, where=_WHERE)


def correct(expected: str, answer: str) -> bool:
    """Whether the texts are the same, but for space around them."""
    return expected.strip() == answer.strip()


def _rouge(names: Sequence[str], expected: Sequence[str], answers: Sequence[str]) -> dict[str, Measured]:
    if not names:
        return {}
    rouge = Rouge(names, where=_WHERE)
    found = [rouge.f1(wanted, got) for wanted, got in zip(expected, answers, strict=True)]
    return {name: mean_of(name, [one[name] for one in found]) for name in names}


def _sacrebleu(name: str, expected: Sequence[str], answers: Sequence[str]) -> Measured:
    """From the statistics that sacrebleu sums over rows, so that the whole is its own corpus score."""
    whole, single = _scorers(name, expected)
    statistics = whole._extract_corpus_statistics(list(answers), [list(expected)])  # noqa: SLF001  # as its own bootstrap does
    sums = np.array(statistics, dtype=np.float64)

    def value(totals: Numbers) -> Numbers:
        return np.array([_score(whole, row) for row in totals])

    return Measured(
        name=name,
        sums=sums,
        present=np.ones(len(sums), dtype=bool),
        value=value,
        by_row=tuple(_score(single, row) for row in sums),
    )


def _scorers(name: str, expected: Sequence[str]) -> tuple[Any, Any]:
    """For all rows together, and for one."""
    if name == "chrf":
        library = load_library("sacrebleu.metrics", name, where=_WHERE)
        return library.CHRF(), library.CHRF()
    return bleu_scorer(expected, one_row=False, where=_WHERE), bleu_scorer(expected, one_row=True, where=_WHERE)


def _score(scorer: Any, statistics: Numbers) -> float:
    return float(scorer._compute_score_from_stats([int(one) for one in statistics]).score)  # noqa: SLF001  # likewise


def _json(expected: Sequence[str], answers: Sequence[str]) -> Iterator[Measured]:
    found = [_json_score(wanted, got) for wanted, got in zip(expected, answers, strict=True)]
    missing = found.count(None)
    if missing:
        emit_message(f"{missing} expected answers are no JSON: they are left out of json_match", level="warning")
    yield mean_of("json_match", [None if one is None else one.share for one in found])
    yield mean_of("json_valid", [None if one is None else float(one.valid) for one in found])
    yield mean_of("json_wrapped", [None if one is None else float(one.wrapped) for one in found])


def _json_score(expected: str, answer: str) -> JsonScore | None:
    try:
        return score_json(read_json(expected), answer)
    except ValueError:
        return None
