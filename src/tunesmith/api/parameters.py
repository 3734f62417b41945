"""The parameters a call declares: unknown ones are refused before it is made, and wrong ones are told in words.

What may be repeated is declared as a tuple, and means any of the values; everything else is given once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.params import HeaderParameter, ParameterKwarg, PathParameter, QueryParameter
from litestar.types import ASGIApp, Receive, Scope, Send
from litestar.typing import FieldDefinition
from msgspec import inspect

from tunesmith.api.faults import faults_in, type_info
from tunesmith.api.openai.errors import OPENAI
from tunesmith.api.services import HttpRequest
from tunesmith.errors import Fault, InvalidInput
from tunesmith.recipes.suggest import did_you_mean, shortened

_MOST_NAMED = 20


class KnownParameters:
    """Middleware: refuses a query with a name that the call does not know, and whatever it knows once and gets twice."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._queries: dict[BaseRouteHandler, dict[str, FieldDefinition]] = {}
        self._headers: dict[BaseRouteHandler, dict[bytes, str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            handler: BaseRouteHandler = scope["route_handler"]
            if scope["query_string"] and not handler.opt.get(
                OPENAI
            ):  # clients of OpenAI's API may send whatever that takes
                self._check_query(handler, scope["query_string"])
            headers = self._headers.get(handler)
            if headers is None:
                names = declared(handler, HeaderParameter)
                headers = self._headers[handler] = {name.lower().encode(): name for name in names}
            if headers:
                _refuse_repeated(scope["headers"], headers)
        await self._app(scope, receive, send)

    def _check_query(self, handler: BaseRouteHandler, query: bytes) -> None:
        known = self._queries.get(handler)
        if known is None:
            known = self._queries[handler] = declared(handler, QueryParameter)
        given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        _refuse_unknown(given, known)
        _refuse_null(handler, given, known)


def _refuse_repeated(headers: Iterable[tuple[bytes, bytes]], known: dict[bytes, str]) -> None:
    """Litestar takes one of them, and a client would not know which."""
    given = Counter(known[name] for name, _ in headers if name in known)
    faults = tuple(_given_often(name, count) for name, count in given.items() if count > 1)
    if faults:
        raise InvalidInput("the request has wrong header fields", faults=faults)


def _given_often(name: str, count: int) -> Fault:
    return Fault(message=f"is given {count} times", where=name, mend="give it once")


def _refuse_unknown(query: list[tuple[str, str]], known: dict[str, FieldDefinition]) -> None:
    given = Counter(name for name, _ in query)
    faults = [
        Fault(
            message="there is no such parameter",
            where=shortened(name),
            mend=did_you_mean(name, known) or (f"there is {', '.join(known)}" if known else "this call takes none"),
        )
        for name in given
        if name not in known
    ]
    faults += [
        _given_often(name, count)
        for name, count in given.items()
        if count > 1 and name in known and not known[name].is_non_string_sequence
    ]
    if faults:
        raise InvalidInput("the query has wrong parameters", faults=tuple(faults[:_MOST_NAMED]))


def _refuse_null(handler: BaseRouteHandler, query: list[tuple[str, str]], known: dict[str, FieldDefinition]) -> None:
    """Litestar takes the word null for no value."""
    faults = [
        fault
        for name, value in query
        if value.casefold() == "null"
        for fault in _wrong(handler, name, known[name], [value])
    ]
    if faults:
        raise InvalidInput("the query has wrong parameters", faults=tuple(faults[:_MOST_NAMED]))


def declared(handler: BaseRouteHandler, kind: type[ParameterKwarg]) -> dict[str, FieldDefinition]:
    """The parameters of one kind (query, path, header) by the names that requests give them."""
    return {
        field.kwarg_definition.name or name: field
        for name, field in handler.parsed_fn_signature.parameters.items()
        if isinstance(field.kwarg_definition, kind)
    }


def type_of(handler: BaseRouteHandler, field: FieldDefinition) -> Any:
    """A parameter's type with its constraints, as msgspec understands it."""
    return handler.signature_model.__annotations__[field.name]


def wrong_parameters(request: HttpRequest) -> Iterator[Fault]:
    """Every parameter of the request that is missing, or is not what its call takes."""
    handler = request.route_handler
    for name, field in declared(handler, QueryParameter).items():
        yield from _wrong(handler, name, field, request.query_params.getall(name, []))
    for name, field in declared(handler, HeaderParameter).items():
        yield from _wrong(handler, name, field, request.headers.getall(name, []))
    for name, field in declared(handler, PathParameter).items():
        yield from _wrong(handler, name, field, [request.path_params[name]])


def _wrong(handler: BaseRouteHandler, name: str, field: FieldDefinition, values: list[Any]) -> Iterator[Fault]:
    if not values:
        if field.is_required:
            yield Fault(message="is required", where=name)
        return
    wanted = type_of(handler, field)
    if field.is_non_string_sequence:
        for value in values:
            # The place of one among several says nothing: the value is in the message.
            yield from (Fault(message=one.message, where=name, mend=one.mend) for one in faults_in([value], wanted))
    else:
        yield from faults_in(_read(values[-1], type_info(wanted)), wanted, name)


def _read(value: Any, wanted: inspect.Type) -> Any:
    """Text as the number that it stands for, where one is wanted."""
    members = wanted.types if isinstance(wanted, inspect.UnionType) else (wanted,)
    if isinstance(value, str) and any(isinstance(one, inspect.IntType) for one in members):
        plain = value.removeprefix("-")
        return int(value) if plain.isascii() and plain.isdecimal() and len(plain) < 20 else value
    return value
