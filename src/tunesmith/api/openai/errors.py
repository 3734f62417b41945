"""Errors as OpenAI's clients read them: ``{"error": {message, type, param, code}}``, with statuses that they do not take amiss.

Their SDKs send a request again after 408, 409, 429 and 5xx. What will not change by itself is 400 here, and never 409.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.handlers import BaseRouteHandler

from tunesmith.api.access import NEEDS_READ, NEEDS_WRITE
from tunesmith.errors import (
    Busy,
    Conflict,
    Fault,
    InvalidInput,
    MissingReference,
    NotFound,
    TunesmithError,
    Unauthenticated,
)

OPENAI = "openai"
READS: dict[str, Any] = {**NEEDS_READ, OPENAI: True}
WRITES: dict[str, Any] = {**NEEDS_WRITE, OPENAI: True}
"""What handlers of this door declare: their errors have this form, and unknown parameters are passed over."""

_BASE = "/v1"
_OTHER_DOORS = frozenset(
    {
        *("callbacks", "datasets", "deidentify:test", "deliveries", "deployments", "experiments", "keys"),
        *("recipes", "runs", "storage", "train-config"),
    }
)
"""What else begins with the same base. Whatever no handler takes is answered in this form, but for these."""
_MOST_FAULTS = 20


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong."""

    message: str
    """Stands alone: what, where, and what to do about it."""
    type: str
    """`invalid_request_error` for whatever the request has to change; else `permission_error`, `rate_limit_error` or `server_error`."""
    param: str | None = None
    """The field or parameter that it is about."""
    code: str | None = None
    """For programs, such as `model_not_found`."""


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An error as OpenAI's clients read it."""

    error: ErrorBody


class OpenAIError(TunesmithError):
    """An error whose status and code OpenAI's clients know."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, where=param)
        self.status, self.code = status, code


def is_openai(request: Request[Any, Any, Any]) -> bool:
    """Whether the request is for this door."""
    handler: BaseRouteHandler | None = request.scope.get("route_handler")
    if handler is not None:
        return bool(handler.opt.get(OPENAI))
    _, base, place, *_ = [*request.url.path.split("/"), "", ""]
    return f"/{base}" == _BASE and place != "" and place not in _OTHER_DOORS


def answer(
    status: int, message: str, *, param: str | None = None, code: str | None = None, headers: Mapping[str, str]
) -> Response[ErrorAnswer]:
    """An error as an answer. ``headers`` go with it."""
    body = ErrorBody(message=message, type=_type_of(status), param=param, code=code)
    return Response(ErrorAnswer(error=body), status_code=status, headers=dict(headers), media_type="application/json")


def of(error: TunesmithError, status: int, headers: Mapping[str, str]) -> Response[ErrorAnswer]:
    """Any error of ours; ``status`` is what the other doors answer."""
    faults = error.faults or (Fault(message=error.message, where=error.where, mend=error.mend),)
    status = status_of(error, status)
    # What goes wrong here is no matter of a parameter, wherever it is.
    param = next((fault.where for fault in faults if fault.where), error.where) if status < 500 else None
    return answer(status, message_of(error), param=param, code=code_of(error), headers=headers)


def status_of(error: TunesmithError, usual: int) -> int:
    """The status in this door; ``usual`` is that in the others."""
    if isinstance(error, OpenAIError):
        return error.status
    if isinstance(error, MissingReference) and error.where == "model":
        return 404
    return 400 if isinstance(error, InvalidInput | Conflict) else usual


def code_of(error: TunesmithError) -> str | None:
    """The word for programs, where OpenAI has one."""
    if isinstance(error, OpenAIError):
        return error.code
    if isinstance(error, MissingReference) and error.where == "model":
        return "model_not_found"
    if isinstance(error, Unauthenticated):
        return "invalid_api_key"
    if isinstance(error, Busy):
        return "rate_limit_exceeded"
    return "not_found" if isinstance(error, NotFound) else None


def message_of(error: TunesmithError) -> str:
    """All of it in one text: clients show nothing else."""
    if not error.faults:
        return str(Fault(message=error.message, where=error.where, mend=error.mend))
    told = "; ".join(map(str, error.faults[:_MOST_FAULTS]))
    more = len(error.faults) - _MOST_FAULTS
    return f"{error.message}: {told}" + (f"; and {more} more" if more > 0 else "")


def _type_of(status: int) -> str:
    if status >= 500:
        return "server_error"
    return {403: "permission_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
