"""The fields of a grader that asks a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith_workers.rewards.fields import Fields, is_number
from tunesmith_workers.rewards.graders import ScoreModel, Turn
from tunesmith_workers.rewards.template_fields import checked_template
from tunesmith_workers.rewards.templates import Template

_ROLES = ("user", "assistant", "system", "developer")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_MOST_MESSAGES = 100
_MOST_PIECES = 100


def score_model(fields: Fields, name: str) -> ScoreModel:
    fields.number("pass_threshold")
    turns = [
        _turn(Fields(value, f"{fields.where}.input[{place}]", fields.faults))
        for place, value in enumerate(fields.objects("input", _MOST_MESSAGES))
    ]
    return ScoreModel(
        name=name,
        where=fields.where,
        model=fields.text("model", longest=500),
        input=tuple(turns),
        range=_range(fields),
        sampling_params=_sampling_params(fields),
    )


def _range(fields: Fields) -> tuple[float, float]:
    match fields.get("range"):
        case None:
            pass
        case [low, high] if is_number(low) and is_number(high) and low < high:
            return float(low), float(high)
        case _:
            fields.fault("range", "must be two numbers, the lower one first", mend="leave it out for [0, 1]")
    return 0.0, 1.0


def _sampling_params(fields: Fields) -> dict[str, Any]:
    value = fields.get("sampling_params")
    params = Fields({} if value is None else value, f"{fields.where}.sampling_params", fields.faults)
    found = {
        "max_completions_tokens": params.whole("max_completions_tokens", 1),
        "seed": params.whole("seed", -(2**63)),
        "temperature": params.number("temperature", 0, 2),
        "top_p": params.number("top_p", 0, 1),
        "reasoning_effort": params.get("reasoning_effort") and params.choice("reasoning_effort", _EFFORTS),
    }
    params.refuse_others()
    return {name: value for name, value in found.items() if value is not None}


def _turn(fields: Fields) -> Turn:
    if fields.get("type") not in (None, "message"):
        fields.fault("type", "must be message")
    turn = Turn(role=fields.choice("role", _ROLES), content=_content(fields))
    fields.refuse_others()
    return turn


def _content(fields: Fields) -> Template:
    """Texts of one message, one after the other."""
    value = fields.get("content")
    pieces: Sequence[Any] = value if isinstance(value, list) else [value]
    if len(pieces) > _MOST_PIECES:
        fields.fault("content", f"has more than {_MOST_PIECES} parts")
        pieces = ()
    texts: list[str] = []
    for place, piece in enumerate(pieces):
        where = f"content[{place}]" if isinstance(value, list) else "content"
        match piece:
            case str():
                texts.append(piece)
            case {"type": "input_text" | "output_text", "text": str() as text}:
                texts.append(text)
            case {"type": "input_image" | "input_audio" as kind}:
                fields.fault(where, f"is an {kind}: judges are asked with texts only")
            case _:
                fields.fault(where, "must be a text, or an object with type input_text and text")
    return checked_template(fields, "content", "".join(texts))
