"""Types as JSON schemas with a description for every field: from the docstring below it, or from the table of words.

msgspec makes the schemas, so they say exactly what its decoders take.
"""

from __future__ import annotations

import ast
import inspect as python
import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import inspect

from tunesmith.api.words import FIELDS

_REFERENCE = "#/components/schemas/{name}"


def described(types: Sequence[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A schema for each type, and the components that they refer to."""
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    structs = {cls.__name__: cls for cls in _named_types(types)}
    for name, component in components.items():
        _describe(component, structs[name])
    return [_unpadded(schema) for schema in schemas], components


def _describe(component: dict[str, Any], cls: type) -> None:
    component["description"] = as_markdown(python.getdoc(cls) or "")
    words = field_words(cls)
    for name, schema in component.get("properties", {}).items():
        text = schema.get("description") or words.get(name) or FIELDS.get(name)
        if text:
            schema["description"] = as_markdown(text)
        if isinstance(schema.get("default"), tuple):
            schema["default"] = list(schema["default"])


def _unpadded(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is left out has no value, so null needs no mention."""
    members = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(members) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**members[0], **rest}


def as_markdown(text: str) -> str:
    """Docstrings mark code as reStructuredText does, the document as Markdown does."""
    return text.replace("``", "`")


def field_words(cls: type) -> dict[str, str]:
    """The docstrings below the fields of a struct and of those it is derived from."""
    words: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            words.update(_words_in(base.__module__).get(base.__name__, {}))
    return words


@lru_cache(maxsize=256)
def _words_in(module: str) -> dict[str, dict[str, str]]:
    """Docstrings below fields, by class; none where a module was installed without its source."""
    try:
        tree = ast.parse(python.getsource(sys.modules[module]))
    except (OSError, TypeError):
        return {}
    return {node.name: dict(_docstrings_in(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docstrings_in(definition: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            yield field.target.id.removesuffix("_"), python.cleandoc(below.value.value)


def _named_types(types: Sequence[Any]) -> set[type]:
    """Every struct and enum within these types."""
    found: set[type] = set()
    waiting: list[Any] = [inspect.type_info(one) for one in types]
    while waiting:
        info = waiting.pop()
        cls = getattr(info, "cls", None)
        if isinstance(cls, type) and issubclass(cls, msgspec.Struct | Enum):
            if cls in found:
                continue
            found.add(cls)
        for name in ("type", "types", "item_type", "item_types", "key_type", "value_type"):
            inner = getattr(info, name, ())
            waiting += inner if isinstance(inner, tuple) else [inner]
        waiting += [field.type for field in getattr(info, "fields", ())]
    return found
