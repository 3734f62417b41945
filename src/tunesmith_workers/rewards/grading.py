"""Asks a grader about a sample. One call is cheap, so that a training can ask about every answer; no process is started.

A score that cannot be computed is 0 and says so: whoever trains on rewards looks at ``failed`` first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from tunesmith_workers.rewards.formula import NotFinite, evaluate
from tunesmith_workers.rewards.graders import (
    Grader,
    JsonMatch,
    Multi,
    Regex,
    ScoreModel,
    Single,
    StringCheck,
    TextSimilarity,
)
from tunesmith_workers.rewards.json_match import find_json, read_json, same_json, score_json
from tunesmith_workers.rewards.judge import Ask, Message, Question, Unanswered, question, score_in
from tunesmith_workers.rewards.patterns import matches
from tunesmith_workers.rewards.sample import CannotGrade, Sample
from tunesmith_workers.rewards.templates import render

_MISSING = object()


class Errors(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, in the words and the shape of OpenAI's ``metadata.errors``. Those of python are never true here."""

    formula_parse_error: bool = False
    """The formula has no finite value for these scores."""
    invalid_variable_error: bool = False
    """A template names what this sample does not have."""
    model_grader_parse_error: bool = False
    """The judge's reply holds no score, or one out of range."""
    model_grader_refusal_error: bool = False
    model_grader_server_error: bool = False
    model_grader_server_error_details: str | None = None
    other_error: bool = False
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    sample_parse_error: bool = False
    """What should be JSON is none."""
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False
    """It took too long."""


class Graded(msgspec.Struct, frozen=True, kw_only=True):
    """What a sample is worth."""

    reward: float
    sub_rewards: dict[str, float | None]
    """Of a multi grader, by name; None where there is no score."""
    errors: Errors
    messages: tuple[str, ...]
    """What went wrong in words, with the place in the grader."""

    @property
    def failed(self) -> bool:
        """Whether the reward is 0 for want of a score."""
        return bool(self.messages)


def no_judge(_: Question) -> Unanswered:
    """For graders that need none."""
    return Unanswered(error="there is no model to ask")


def grade(grader: Grader, sample: Sample, ask: Ask = no_judge) -> Graded:
    """The reward of one sample. ``ask`` is called for score_model graders only; what it raises comes through."""
    failures: list[CannotGrade] = []
    if not isinstance(grader, Multi):
        score = _noted(grader, sample, ask, failures)
        return _graded(score, {}, failures)
    scores = {name: _noted(one, sample, ask, failures) for name, one in grader.graders.items()}
    return _graded(_combined(grader, scores, failures), scores, failures)


def questions(grader: Grader, sample: Sample) -> Iterator[Question]:
    """What ``grade`` would ask a model about this sample, so that many can be asked at once."""
    for one in grader.graders.values() if isinstance(grader, Multi) else [grader]:
        if isinstance(one, ScoreModel):
            yield from _askable(one, sample)


def _askable(grader: ScoreModel, sample: Sample) -> tuple[Question, ...]:
    """The question, or none: then ``grade`` says why."""
    try:
        return (_question(grader, sample),)
    except CannotGrade:
        return ()


def _noted(grader: Single, sample: Sample, ask: Ask, failures: list[CannotGrade]) -> float | None:
    try:
        return _score(grader, sample, ask)
    except CannotGrade as failure:
        failures.append(failure)
        return None


def _combined(grader: Multi, scores: Mapping[str, float | None], failures: list[CannotGrade]) -> float | None:
    known = {name: score for name, score in scores.items() if score is not None}
    if not grader.formula.names <= known.keys():
        return None
    try:
        return evaluate(grader.formula, known)
    except NotFinite as place:
        text = f"{grader.where}.calculate_output: {place} has no finite value for {dict(known)}"
        failures.append(CannotGrade("formula_parse_error", text))
        return None


def _graded(score: float | None, scores: dict[str, float | None], failures: list[CannotGrade]) -> Graded:
    flags = {failure.flag: True for failure in failures}
    details = next((failure.text for failure in failures if failure.flag == "model_grader_server_error"), None)
    return Graded(
        reward=0.0 if score is None else score,
        sub_rewards=scores,
        errors=msgspec.structs.replace(Errors(model_grader_server_error_details=details), **flags),
        messages=tuple(failure.text for failure in failures),
    )


def _score(grader: Single, sample: Sample, ask: Ask) -> float:
    """Raises CannotGrade."""
    match grader:
        case StringCheck():
            return float(_string_check(grader, sample))
        case TextSimilarity():
            return grader.similarity(
                render(grader.input, sample, f"{grader.where}.input"),
                render(grader.reference, sample, f"{grader.where}.reference"),
            )
        case JsonMatch():
            return _json_match(grader, sample)
        case Regex():
            text = render(grader.input, sample, f"{grader.where}.input")
            return float(matches(grader.pattern, text, f"{grader.where}.input"))
        case ScoreModel():
            return score_in(ask(_question(grader, sample)), grader.range, grader.where)


def _string_check(grader: StringCheck, sample: Sample) -> bool:
    text = render(grader.input, sample, f"{grader.where}.input")
    reference = render(grader.reference, sample, f"{grader.where}.reference")
    match grader.operation:
        case "eq":
            return text == reference
        case "ne":
            return text != reference
        case "like":
            return reference in text
        case "ilike":
            return reference.casefold() in text.casefold()


def _json_match(grader: JsonMatch, sample: Sample) -> float:
    text = render(grader.input, sample, f"{grader.where}.input")
    where = f"{grader.where}.reference"
    try:
        wanted = read_json(render(grader.reference, sample, where))
    except ValueError:
        raise CannotGrade("sample_parse_error", f"{where}: is no JSON") from None
    if not grader.keys:
        return float(score_json(wanted, text).share == 1)
    if not isinstance(wanted, dict):
        raise CannotGrade("sample_parse_error", f"{where}: is no JSON object, and has no keys")
    found = find_json(text)
    if found is None or not isinstance(found.value, dict):
        return 0.0
    return sum(_agree(wanted, found.value, key) for key in grader.keys) / len(grader.keys)


def _agree(wanted: Mapping[str, object], got: Mapping[str, object], key: str) -> bool:
    """Both lack the key, or have the same value for it."""
    ours, theirs = wanted.get(key, _MISSING), got.get(key, _MISSING)
    if ours is _MISSING or theirs is _MISSING:
        return ours is theirs
    return same_json(ours, theirs)


def _question(grader: ScoreModel, sample: Sample) -> Question:
    """Raises CannotGrade."""
    messages = tuple(
        Message(role=turn.role, content=render(turn.content, sample, f"{grader.where}.input[{place}]"))
        for place, turn in enumerate(grader.input)
    )
    return question(grader.model, messages, grader.sampling_params, grader.range)
