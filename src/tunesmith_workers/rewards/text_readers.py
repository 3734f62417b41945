"""The fields of the graders that compare texts, one function for each type."""

from __future__ import annotations

from typing import Any

from tunesmith_workers.rewards.fields import Fields
from tunesmith_workers.rewards.graders import JsonMatch, Operation, Regex, StringCheck, TextSimilarity
from tunesmith_workers.rewards.patterns import LONGEST_PATTERN, BadPattern, Pattern, read_pattern
from tunesmith_workers.rewards.similarity import METRICS, similarity
from tunesmith_workers.rewards.template_fields import ANSWER, template_of

_OPERATIONS: tuple[Operation, ...] = ("eq", "ne", "like", "ilike")
_MOST_KEYS = 100


def string_check(fields: Fields, name: str) -> StringCheck:
    return StringCheck(
        name=name,
        where=fields.where,
        input=template_of(fields, "input"),
        operation=fields.choice("operation", _OPERATIONS),
        reference=template_of(fields, "reference"),
    )


def text_similarity(fields: Fields, name: str) -> TextSimilarity:
    fields.number("pass_threshold")
    if fields.get("evaluation_metric") == "cosine":
        fields.fault(
            "evaluation_metric",
            "is cosine, a similarity of embeddings, for which this service has no model",
            mend=f"choose from {', '.join(METRICS)}, or have a model judge with score_model",
        )
        metric = METRICS[0]
    else:
        metric = fields.choice("evaluation_metric", METRICS)
    return TextSimilarity(
        name=name,
        where=fields.where,
        input=template_of(fields, "input"),
        reference=template_of(fields, "reference"),
        similarity=similarity(metric, where=f"{fields.where}.evaluation_metric"),
    )


def json_match(fields: Fields, name: str) -> JsonMatch:
    keys = fields.get("keys")
    if keys is not None and not _are_keys(keys):
        fields.fault("keys", f"must be a list of 1 to {_MOST_KEYS} different texts")
        keys = None
    return JsonMatch(
        name=name,
        where=fields.where,
        input=template_of(fields, "input", ANSWER),
        reference=template_of(fields, "reference"),
        keys=tuple(keys or ()),
    )


def _are_keys(keys: Any) -> bool:
    return (
        isinstance(keys, list)
        and 0 < len(keys) <= _MOST_KEYS
        and all(isinstance(key, str) for key in keys)
        and len(set(keys)) == len(keys)
    )


def regex(fields: Fields, name: str) -> Regex:
    pattern, full = fields.text("pattern", longest=LONGEST_PATTERN), fields.flag("full")
    try:
        compiled = read_pattern(pattern, full=full, where=f"{fields.where}.pattern")
    except BadPattern as fault:
        fields.fault("pattern", str(fault))
        compiled = Pattern(None, full)
    return Regex(name=name, where=fields.where, input=template_of(fields, "input", ANSWER), pattern=compiled)
