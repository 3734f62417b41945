"""The graders, as frozen structs that are ready to be used. ``reading`` makes them from JSON, ``grading`` asks them."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from tunesmith_workers.rewards.formula import Formula
from tunesmith_workers.rewards.patterns import Pattern
from tunesmith_workers.rewards.similarity import Similarity
from tunesmith_workers.rewards.templates import Template

Operation = Literal["eq", "ne", "like", "ilike"]


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """What all of them have."""

    name: str
    where: str
    """Its place in the request, for messages: ``grader``, ``grader.graders.style``."""


class StringCheck(Named, frozen=True, kw_only=True):
    """1 or 0, by comparing two texts as they are."""

    input: Template
    operation: Operation
    reference: Template


class TextSimilarity(Named, frozen=True, kw_only=True):
    """From 0 to 1, by a metric of texts."""

    input: Template
    reference: Template
    similarity: Similarity


class JsonMatch(Named, frozen=True, kw_only=True):
    """1 where the input holds the same JSON as the reference; with ``keys``, the share of these that agree."""

    input: Template
    reference: Template
    keys: tuple[str, ...]


class Regex(Named, frozen=True, kw_only=True):
    """1 where the pattern is found in the input, or matches all of it."""

    input: Template
    pattern: Pattern


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A message to the judge, before anything is put in."""

    role: str
    content: Template


class ScoreModel(Named, frozen=True, kw_only=True):
    """The number that a model gives, within the range."""

    model: str
    input: tuple[Turn, ...]
    range: tuple[float, float]
    sampling_params: dict[str, Any]


Single: TypeAlias = StringCheck | TextSimilarity | JsonMatch | Regex | ScoreModel


class Multi(Named, frozen=True, kw_only=True):
    """What a formula makes of several scores."""

    graders: dict[str, Single]
    formula: Formula


Grader: TypeAlias = Single | Multi
