"""The OpenAPI document, made of what the handlers declare: their types, parameters, docstrings, scopes and statuses.

Built here and not by Litestar, whose schemas say less than the decoders check (unknown fields, lengths), and whose
error answers are not ours.
"""

from __future__ import annotations

import inspect as python
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, ParameterKwarg, PathParameter, QueryParameter
from litestar.response.base import Response
from litestar.routes import HTTPRoute
from litestar.typing import FieldDefinition

from tunesmith import __version__
from tunesmith.api.access import OPEN, OPT
from tunesmith.api.examples import BODIES, PARAMETERS
from tunesmith.api.multipart_file import MultipartFile
from tunesmith.api.openai.errors import OPENAI, ErrorAnswer
from tunesmith.api.parameters import declared, type_of
from tunesmith.api.problems import MEDIA_TYPE, Problem
from tunesmith.api.schemas import as_markdown, described
from tunesmith.api.statuses import errors_of, successes_of
from tunesmith.api.words import FIELDS, SUMMARIES

_ABOUT = (
    "A self-hosted fine-tuning service for language models. Every error is a problem document (RFC 9457); unknown "
    "fields and parameters are refused with the nearest name. Lists take `limit` and `cursor`; a filter that may be "
    "repeated means any of its values. Times are ISO 8601 in UTC. The calls below OpenAI do all of this as OpenAI's clients "
    "expect it."
)
_KINDS: dict[str, type[ParameterKwarg]] = {"path": PathParameter, "query": QueryParameter, "header": HeaderParameter}
_EVENT = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {
        "id": {"type": "string", "description": "Where to resume from: send it as `Last-Event-ID`."},
        "event": {"type": "string", "description": "What kind of event it is."},
        "data": {"type": "string", "description": "JSON, as the event's kind has it."},
    },
    "required": ["event", "data"],
}
_FIRST_SENTENCE = re.compile(r"(.+?)(?:\.\s|\.$|$)", re.DOTALL)


class _Call(NamedTuple):
    path: str
    method: str
    handler: HTTPRouteHandler


def document(app: Litestar) -> dict[str, Any]:
    """The whole document. Takes some 100 ms: call it once, in a thread."""
    calls = sorted(_calls(app), key=lambda call: (call.path, call.method))
    types: dict[Any, None] = {Problem: None, ErrorAnswer: None}
    for _, _, handler in calls:
        types.update(dict.fromkeys(_types_of(handler)))
    schemas, components = described(list(types))
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for path, method, handler in calls:
        paths.setdefault(path, {})[method] = _operation(handler, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tunesmith", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
        },
    }


def _calls(app: Litestar) -> Iterator[_Call]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for method, (handler, _) in route.route_handler_map.items():
                if handler.resolve_include_in_schema() and method not in ("OPTIONS", "HEAD"):
                    yield _Call(route.path_format, method.lower(), handler)


def _types_of(handler: HTTPRouteHandler) -> Iterator[Any]:
    for kind in _KINDS.values():
        for field in declared(handler, kind).values():
            yield type_of(handler, field)
    body = handler.parsed_data_field
    if body is not None:
        yield body.annotation
    answer = _answer_of(handler)
    if answer is not None:
        yield answer


def _answer_of(handler: HTTPRouteHandler) -> Any:
    """The type of a good answer; None for one that is no JSON."""
    returned = handler.parsed_return_field
    if returned.is_union:  # of kinds of responses: whole, or as a stream
        returned = returned.inner_types[0]
    if not returned.is_subclass_of(Response):
        return None if returned.annotation is str else returned.annotation
    inner = returned.inner_types[0].annotation if returned.inner_types else Any
    return None if inner in (Any, bytes) else inner


def _operation(handler: HTTPRouteHandler, schema_of: dict[Any, Any]) -> dict[str, Any]:
    words = as_markdown(python.cleandoc(handler.fn.__doc__ or ""))
    operation: dict[str, Any] = {
        "operationId": handler.handler_name,
        "tags": list(handler.resolve_tags()),
        "summary": SUMMARIES.get(handler.handler_name) or _first_sentence(words),
        "description": words,
        "responses": _responses(handler, schema_of),
    }
    parameters = [
        _parameter(handler, place, name, field, schema_of)
        for place, kind in _KINDS.items()
        for name, field in declared(handler, kind).items()
    ]
    if parameters:
        operation["parameters"] = parameters
    body = _body(handler, schema_of)
    if body is not None:
        operation["requestBody"] = body
    if handler.opt.get(OPT) == OPEN:
        operation["security"] = []
    return operation


def _first_sentence(text: str) -> str:
    found = _FIRST_SENTENCE.match(text)
    return " ".join(found[1].split()) if found else ""


def _parameter(
    handler: HTTPRouteHandler, place: str, name: str, field: FieldDefinition, schema_of: dict[Any, Any]
) -> dict[str, Any]:
    definition = field.kwarg_definition
    assert isinstance(definition, ParameterKwarg)
    schema = {key: value for key, value in schema_of[type_of(handler, field)].items() if key != "description"}
    if field.has_default and field.default not in (None, ()):
        schema["default"] = field.default
    parameter = {
        "name": name,
        "in": place,
        "required": place == "path" or field.is_required,
        "description": definition.description or FIELDS.get(name, ""),
        "schema": schema,
    }
    if name in PARAMETERS:
        parameter["example"] = PARAMETERS[name]
    return parameter


def _body(handler: HTTPRouteHandler, schema_of: dict[Any, Any]) -> dict[str, Any] | None:
    field, form = handler.parsed_data_field, handler.operation_class
    if issubclass(form, MultipartFile):
        parts = {name: dict(schema) for name, schema in form.PARTS.items()}
        schema = {"type": "object", "properties": parts, "required": list(form.REQUIRED)}
        return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    if field is None:
        return None
    content = {"schema": schema_of[field.annotation]}
    taken = next((one for one in (field.annotation, *field.args) if one in BODIES), None)
    if taken is not None:
        content["example"] = BODIES[taken]
    return {"required": field.is_required, "content": {"application/json": content}}


def _responses(handler: HTTPRouteHandler, schema_of: dict[Any, Any]) -> dict[str, Any]:
    answer = _answer_of(handler)
    usual = as_markdown((python.getdoc(answer) or "").partition("\n")[0]) if isinstance(answer, type) else ""
    responses: dict[str, Any] = {}
    for status, words in successes_of(handler, usual or "As asked.").items():
        responses[str(status)] = {"description": words}
        if status != 204:
            responses[str(status)]["content"] = _content(handler, answer, schema_of)
    if handler.opt.get(OPENAI):
        error = {"application/json": {"schema": schema_of[ErrorAnswer]}}
    else:
        error = {MEDIA_TYPE: {"schema": schema_of[Problem]}}
    for status, words in errors_of(handler).items():
        responses[str(status)] = {"description": words} if status == 304 else {"description": words, "content": error}
    return responses


def _content(handler: HTTPRouteHandler, answer: Any, schema_of: dict[Any, Any]) -> dict[str, Any]:
    if answer is not None and handler.parsed_return_field.is_union:
        return {"application/json": {"schema": schema_of[answer]}, "text/event-stream": {"schema": {"type": "string"}}}
    if answer is not None:
        return {"application/json": {"schema": schema_of[answer]}}
    media_type = str(getattr(handler.media_type, "value", handler.media_type) or "application/octet-stream")
    if media_type == "application/json":  # what Litestar takes where a handler says nothing: a file's bytes
        media_type = "application/octet-stream"
    return {media_type: {"schema": _EVENT if media_type == "text/event-stream" else {"type": "string"}}}
