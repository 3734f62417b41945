"""The metrics by name: what each needs, and which way is better. How they are computed is in the modules beside this one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from tunesmith_workers.process.faults import BadConfig, listed

Needs = Literal["tokens", "answers", "judge"]


class MetricKind(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a metric before anything is scored."""

    needs: Needs
    """What it is computed from: the probabilities of the given answers, the model's own answers, or a judge's replies."""
    lower_is_better: bool = False
    sign: int = 1
    """-1 where lower is better: a difference times the sign is an improvement."""


def _lower(needs: Needs) -> MetricKind:
    return MetricKind(needs=needs, lower_is_better=True, sign=-1)


KINDS: Mapping[str, MetricKind] = MappingProxyType(
    {
        "loss": _lower("tokens"),
        "perplexity": _lower("tokens"),
        "accuracy": MetricKind(needs="tokens"),
        "token_accuracy": MetricKind(needs="tokens"),
        "exact_match": MetricKind(needs="answers"),
        "json_match": MetricKind(needs="answers"),
        "rouge1": MetricKind(needs="answers"),
        "rouge2": MetricKind(needs="answers"),
        "rougeL": MetricKind(needs="answers"),
        "bleu": MetricKind(needs="answers"),
        "chrf": MetricKind(needs="answers"),
        "judge_score": MetricKind(needs="judge"),
    }
)

BESIDE: Mapping[str, MetricKind] = MappingProxyType(
    {
        "json_valid": MetricKind(needs="answers"),
        "json_wrapped": _lower("answers"),
        "judge_unparsed": _lower("judge"),
    }
)
"""What is reported beside a metric of ``KINDS``, and cannot be asked for by itself."""


def kind_of(name: str) -> MetricKind:
    return KINDS.get(name) or BESIDE[name]


def chosen(names: Iterable[str], *, has_judge: bool) -> tuple[str, ...]:
    """The metrics that a config asks for, each once; a judge that is named is asked.

    Raises:
        BadConfig: some are none of ours, and all of those are named; or there is none.
    """
    wanted = tuple(dict.fromkeys(names))
    unknown = [_unknown(name) for name in wanted if name not in KINDS]
    if unknown:
        raise BadConfig(
            f"these are no metrics:\n{listed(unknown)}",
            where="evaluation.metrics",
            mend=f"the metrics are {', '.join(KINDS)}",
        )
    if "judge_score" in wanted and not has_judge:
        raise BadConfig(
            "judge_score needs a judge",
            where="evaluation.metrics",
            mend="set evaluation.judge.model, or evaluation.judge.url and evaluation.judge.url_model",
        )
    if has_judge and "judge_score" not in wanted:
        wanted = (*wanted, "judge_score")
    if not wanted:
        raise BadConfig("names no metric", where="evaluation.metrics", mend=f"choose from {', '.join(KINDS)}")
    return wanted


def needs(names: Iterable[str]) -> frozenset[Needs]:
    """What these metrics are computed from."""
    return frozenset(KINDS[name].needs for name in names)


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name[:100], list(KINDS), n=2)
    return f"{name[:100]}" + (f"; did you mean {' or '.join(close)}?" if close else "")
