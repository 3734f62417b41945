"""From errors to HTTP: RFC 9457 problem documents. The one table of status codes; the OpenAI-shaped door reshapes them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from tunesmith.api.bodies import WRONG_FIELDS
from tunesmith.api.openai import errors as openai_errors
from tunesmith.api.parameters import wrong_parameters
from tunesmith.errors import (
    Busy,
    Conflict,
    Fault,
    Forbidden,
    InvalidInput,
    MissingReference,
    NotFound,
    OutOfSpace,
    PromptRefused,
    TooLarge,
    TunesmithError,
    Unauthenticated,
    Unavailable,
    WorkerFailed,
)
from tunesmith.files import SHORTAGE

_log = structlog.get_logger()
MEDIA_TYPE = "application/problem+json"
_SEE_DOCS = "/docs lists every call with its fields"

STATUS: dict[type[TunesmithError], int] = {
    MissingReference: 400,
    PromptRefused: 400,
    InvalidInput: 422,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    Busy: 429,
    OutOfSpace: 507,
    Unavailable: 503,
    WorkerFailed: 500,
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document as RFC 9457 defines it, with every single fault listed."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    where: str | None = None
    mend: str | None = None
    errors: tuple[Fault, ...] = ()


def status_of(error: TunesmithError) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


Answer = Response[Problem] | Response[openai_errors.ErrorAnswer]


def from_tunesmith_error(request: Request[Any, Any, Any], error: TunesmithError) -> Answer:
    status = status_of(error)
    if isinstance(error, openai_errors.OpenAIError):
        status = error.status
    headers = {"Retry-After": "2"} if status in (429, 503) else {}
    if status == 401:
        # A browser asks its user for a password only when offered Basic: the key goes there.
        page = "text/html" in request.headers.get("accept", "")
        headers["WWW-Authenticate"] = 'Basic realm="tunesmith: any name, the API key as password"' if page else "Bearer"
    if status >= 500:
        _log.error("request_failed", path=request.url.path, status=status, reason=str(error))
    if openai_errors.is_openai(request):
        return openai_errors.of(error, status, headers)
    mend = error.mend or (None if error.faults or status >= 500 else _SEE_DOCS)
    return refusal(
        request, status, detail=error.message, where=error.where, mend=mend, errors=error.faults, headers=headers
    )


def from_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Answer:
    """What Litestar itself refuses: unknown paths and methods, unreadable bodies, wrong fields and parameters."""
    if isinstance(error, ValidationException):
        faults = tuple(wrong_parameters(request)) or (Fault(message="a JSON body is needed", where="body"),)
        return refusal(request, 422, detail=WRONG_FIELDS, errors=faults)
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    detail, mend = error.detail, _SEE_DOCS
    if error.status_code == 404:
        detail = f"there is nothing at {request.url.path}"
    elif error.status_code == 405:
        detail = f"{request.method} is not possible here"
    elif error.status_code == 413:
        detail, mend = "the request body is too large", "send less, or put large content into a file and name the file"
    return refusal(request, error.status_code, detail=detail, mend=mend, headers=headers)


def from_unreadable(request: Request[Any, Any, Any], _error: Exception) -> Answer:
    """Bodies that the parsers choke on: nested too deeply, or not UTF-8."""
    return refusal(
        request, 400, detail="the request body is not JSON in UTF-8, or is nested too deeply", mend=_SEE_DOCS
    )


def from_shortage(request: Request[Any, Any, Any], error: OSError | MemoryError) -> Answer:
    """Descriptors or memory are short, which passes; any other OSError that comes here is a bug."""
    if isinstance(error, OSError) and error.errno not in SHORTAGE:
        return from_bug(request, error)
    reason = error.strerror if isinstance(error, OSError) else "Cannot allocate memory"
    busy = Unavailable(f"the service is short of descriptors or memory: {reason}", mend="try again in a moment")
    return from_tunesmith_error(request, busy)


def from_bug(request: Request[Any, Any, Any], error: Exception) -> Answer:
    _log.exception("bug", path=request.url.path, exc_info=error)
    detail = "this is a bug in Tunesmith; its log has the traceback"
    return refusal(request, 500, detail=detail, mend="please report it with the traceback")


def refusal(
    request: Request[Any, Any, Any], status: int, *, headers: dict[str, str] | None = None, **fields: Any
) -> Answer:
    """An error as the request's door says it; ``fields`` are those of a problem document."""
    if openai_errors.is_openai(request):
        error = TunesmithError(
            fields["detail"], where=fields.get("where"), mend=fields.get("mend"), faults=fields.get("errors", ())
        )
        return openai_errors.of(error, 400 if status == 422 else status, headers or {})
    problem = Problem(title=HTTPStatus(status).phrase, status=status, instance=request.url.path, **fields)
    return Response(problem, status_code=status, media_type=MEDIA_TYPE, headers=headers or {})


HANDLERS: dict[Any, Any] = {
    TunesmithError: from_tunesmith_error,
    HTTPException: from_http_exception,
    RecursionError: from_unreadable,
    UnicodeDecodeError: from_unreadable,
    OSError: from_shortage,
    MemoryError: from_shortage,
    Exception: from_bug,
}
