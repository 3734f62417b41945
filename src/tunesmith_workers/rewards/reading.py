"""From the JSON of a grader to a grader that can be used, or to everything that is wrong with it, by field.

The types are OpenAI's, and ``json_match`` and ``regex`` beside them. ``python`` is refused: no code of a request is run.
"""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from tunesmith_workers.rewards.fields import BadGrader, Fault, Fields
from tunesmith_workers.rewards.formula import FUNCTIONS, LONGEST_FORMULA, BadFormula, Formula, read_formula
from tunesmith_workers.rewards.graders import Grader, Multi, Single
from tunesmith_workers.rewards.judge_reader import score_model
from tunesmith_workers.rewards.text_readers import json_match, regex, string_check, text_similarity

_MOST_GRADERS = 50
_READERS: Mapping[str, Callable[[Fields, str], Single]] = MappingProxyType(
    {
        "string_check": string_check,
        "text_similarity": text_similarity,
        "json_match": json_match,
        "regex": regex,
        "score_model": score_model,
    }
)
_REFUSED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "python": (
            "is python, and this service runs no code of requests",
            "combine the other types in a multi grader, or have a model judge with score_model",
        ),
        "label_model": (
            "is label_model, which is not offered",
            "use score_model, and have the model answer with 1 for a label that passes and 0 for the others",
        ),
    }
)


def read_grader(value: Any, where: str = "grader") -> Grader:
    """The grader that a JSON value describes.

    Raises:
        BadGrader: it cannot be used; all faults are named by their field, such as ``grader.graders.x.pattern``.
        PackageMissing: it needs a package that is not installed.
    """
    faults: list[Fault] = []
    fields = Fields(value, where, faults)
    grader = _multi(fields) if fields.get("type") == "multi" else _single(fields, name=None)
    if faults or grader is None:
        raise BadGrader(faults)
    return grader


def _single(fields: Fields, name: str | None) -> Single | None:
    """``name``: what it is called by the grader that holds it, unless it says otherwise."""
    kind = fields.get("type")
    if not fields.is_object:
        return None
    if isinstance(kind, str) and kind in _REFUSED:
        fields.fault("type", *_REFUSED[kind])
        return None
    if not isinstance(kind, str) or kind not in _READERS:
        fields.choice("type", (*_READERS, "multi") if name is None else tuple(_READERS))
        return None
    grader = _READERS[kind](fields, fields.text("name", name))
    fields.refuse_others()
    return grader


def _multi(fields: Fields) -> Multi:
    name = fields.text("name")
    graders = fields.get("graders")
    if isinstance(graders, dict) and isinstance(graders.get("type"), str):
        # As the types of OpenAI's client have it: one grader, by its own name.
        own = graders.get("name")
        graders = {own if isinstance(own, str) else "": graders}
    if not isinstance(graders, dict) or not 0 < len(graders) <= _MOST_GRADERS:
        fields.fault("graders", f"must be an object with 1 to {_MOST_GRADERS} graders by name")
        graders = {}
    read: dict[str, Single] = {}
    for key, value in graders.items():
        _check_name(fields, key)
        inner = _single(Fields(value, f"{fields.where}.graders.{key[:100]}", fields.faults), key)
        if inner is not None:
            read[key] = inner
    formula = _formula(fields, set(graders))
    fields.refuse_others()
    return Multi(name=name, where=fields.where, graders=read, formula=formula)


def _check_name(fields: Fields, key: str) -> None:
    if (
        not key.isidentifier()
        or keyword.iskeyword(key)
        or key in FUNCTIONS
        or unicodedata.normalize("NFKC", key) != key
    ):
        fields.fault(
            f"graders.{key[:100]}",
            "has a name that no formula can have",
            mend=f"use letters, digits and _, and none of {', '.join(FUNCTIONS)}",
        )


def _formula(fields: Fields, names: set[str]) -> Formula:
    text = fields.text("calculate_output", longest=LONGEST_FORMULA)
    try:
        formula = read_formula(text or "0")
    except BadFormula as fault:
        fields.fault("calculate_output", str(fault))
        return read_formula("0")
    unknown = sorted(formula.names - names)
    if unknown:
        fields.fault(
            "calculate_output",
            f"names {', '.join(unknown)[:200]}, which is none of its graders",
            mend=f"there are {', '.join(sorted(names))[:200]}",
        )
    return formula
