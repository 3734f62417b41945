"""What a training function answers: one result, checked and completed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Annotated, Any, Literal

import msgspec

from tunesmith.errors import Fault, InvalidInput

Measurement = Literal["step", "epoch"]
Curve = list[int | float | None]


class FigParam(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Curves since the start, ready to be drawn."""

    x_axis: list[int | float]
    x_label: Measurement
    losses: Curve
    accuracies: Curve = []
    valid_losses: Curve = []
    valid_accuracies: Curve = []


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where training stands after step or epoch ``idx``."""

    is_final: bool = False
    idx: Annotated[int, msgspec.Meta(ge=1)]
    fig_param: FigParam
    test_accuracy: int | float | None = None
    output_model_path: str = ""
    output_log_path: str = ""


decode_result = msgspec.json.Decoder(Result).decode


class ReportedResult(Result, frozen=True, kw_only=True):
    """A result as a function gives it: with what is for us and not for the receiver."""

    checkpoint: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """A file or folder that training can resume from. It is copied, so it may be written over afterwards."""

    @property
    def told(self) -> Result:
        return Result(**{name: getattr(self, name) for name in Result.__struct_fields__})


# Has msgspec describe it now: a function may report its first results from several threads at once.
msgspec.json.Decoder(ReportedResult)


def read_result(
    given: object, *, measurement: Measurement, output_model_path: str, output_log_path: str
) -> ReportedResult:
    """The result that a function gave, with its paths filled in.

    Raises:
        InvalidInput: with what is wrong.
    """
    plain = _plain(given)
    if not isinstance(plain, dict):
        raise InvalidInput(
            f"a result must be a dict, not {type(given).__name__}", where="result", mend="see docs/finetune.md"
        )
    paths = {"output_model_path": output_model_path, "output_log_path": output_log_path}
    try:
        result = msgspec.convert({**paths, **plain}, ReportedResult)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"a result does not have the right shape: {error}", where="result", mend="see docs/finetune.md"
        ) from error
    faults = _disagreements(result.fig_param, measurement)
    if faults:
        raise InvalidInput("the curves of a result do not fit together", where="result", faults=tuple(faults))
    return result


def _disagreements(figure: FigParam, measurement: Measurement) -> list[Fault]:
    faults = []
    if figure.x_label != measurement:
        message = f"is {figure.x_label!r}, and the request measures by {measurement}"
        faults.append(Fault(message=message, where="fig_param.x_label", mend="take it from param_dict['measurement']"))
    for name in ("losses", "accuracies", "valid_losses", "valid_accuracies"):
        values = getattr(figure, name)
        if len(values) != len(figure.x_axis) and (values or name == "losses"):
            message = f"has {len(values)} values, and x_axis has {len(figure.x_axis)}"
            faults.append(Fault(message=message, where=f"fig_param.{name}", mend="give one for each, or none at all"))
    return faults


def _plain(value: Any) -> Any:
    """Numbers and lists out of what numpy and torch call so, without importing either."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
