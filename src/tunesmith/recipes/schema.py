"""Turns the ``config`` and ``schema`` of a recipe.yaml into options, gathering what is wrong in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from tunesmith.recipes.faults import Faults, at
from tunesmith.recipes.options import REFERENCE_KINDS, TYPES, WANTED, Option, ReferenceKind, Type, plain_faults, type_of
from tunesmith.recipes.recipe import SECTIONS
from tunesmith.recipes.suggest import described, did_you_mean

_REFINEMENTS = ("type", "optional", "min", "max", "choices", "items", "reference")
_OPTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

_SET_BY_SERVER: Mapping[str, Type] = MappingProxyType(
    {
        "job.type": "str",
        "job.method": "str",
        "job.project": "str",
        "model.base": "str",
        "data.train_file": "str",
    }
)
"""Options whose type is the same in every recipe, so that their default may be null without a schema."""


def sections(given: Any, recipe_name: str, faults: Faults) -> dict[str, Any]:
    """The defaults by section, with the ``job`` that every recipe has."""
    if given is not None and not isinstance(given, dict):
        faults.add(f"must be a mapping, not {described(given)}", at("config"), "nest the defaults by sections")
        given = None
    config: dict[str, Any] = {}
    for section, options in (given or {}).items():
        where = at(f"config.{section}")
        if section not in SECTIONS:
            faults.add(f"is no section: they are {', '.join(SECTIONS)}", where, did_you_mean(section, SECTIONS))
        elif options is not None and not isinstance(options, dict):
            faults.add(f"must be a mapping, not {described(options)}", where, "its options go below it")
        else:
            config[section] = options or {}
    return _with_job(config, recipe_name)


def options_of(config: dict[str, Any], schema: dict[str, Any], faults: Faults) -> dict[str, Option]:
    """Every option by its dotted path; one with faults is there, too, so that what points at it is not reported as well."""
    defaults: dict[str, Any] = {}
    for section, options in config.items():
        _flatten(options, section, schema, defaults, faults)
    for path in schema:
        if path not in defaults:
            faults.add("is no option of this recipe", at(f"schema.{path}"), did_you_mean(path, defaults))
    return {
        path: _option(path, default, schema.get(path, {}), faults)
        or Option(path=path, type="mapping", default=None, optional=True)
        for path, default in defaults.items()
    }


def _with_job(config: dict[str, Any], recipe_name: str) -> dict[str, Any]:
    """Every recipe has the options by which a train config names it and its project."""
    job = {"type": recipe_name, "method": None, "project": None} | config.get("job", {})
    if job["type"] is None:
        job["type"] = recipe_name
    return {"job": job} | {section: options for section, options in config.items() if section != "job"}


def _flatten(
    options: dict[str, Any], group: str, schema: dict[str, Any], defaults: dict[str, Any], faults: Faults
) -> None:
    """A mapping with entries is a group of options, unless the schema says that it is one option."""
    for name, default in options.items():
        path = f"{group}.{name}"
        if not _OPTION_NAME.fullmatch(name):
            faults.add("cannot be the name of an option", at(f"config.{path}"), "use letters, digits, - and _")
        elif isinstance(default, dict) and default and path not in schema:
            _flatten(default, path, schema, defaults, faults)
        else:
            defaults[path] = default


def _option(path: str, default: Any, given: Any, faults: Faults) -> Option | None:
    where = at(f"schema.{path}")
    if not isinstance(given, dict):
        faults.add(f"must be a mapping, not {described(given)}", where, "such as {type: int, min: 1}")
        return None
    before = len(faults.found)
    faults.add_unknown_keys(given, _REFINEMENTS, f"schema.{path}")
    kind = _type(path, default, given, faults)
    if kind is None:
        return None
    items = _items(kind, given, where, faults)
    option = Option(
        path=path,
        type=kind,
        default=default,
        optional=_optional(default, given, where, faults),
        min=_limit("min", kind, given, where, faults),
        max=_limit("max", kind, given, where, faults),
        choices=_choices(path, items or kind, given, where, faults),
        items=items,
        reference=_reference(items or kind, given, where, faults),
    )
    if option.min is not None and option.max is not None and option.min > option.max:
        faults.add("min is larger than max", where, "swap them")
    if len(faults.found) > before:
        return None
    return option if default is None else _with_checked_default(option, faults)


def _type(path: str, default: Any, given: dict[str, Any], faults: Faults) -> Type | None:
    kind: Any = given["type"] if "type" in given else _SET_BY_SERVER.get(path) or type_of(default)
    if "type" in given and kind not in TYPES:
        faults.add(f"must be one of {', '.join(TYPES)}", at(f"schema.{path}.type"), did_you_mean(kind, TYPES))
        return None
    if kind is None:
        faults.add(
            "has the default null, so its type is not known",
            at(f"config.{path}"),
            f"add to the schema: `{path}: {{type: ...}}`",
        )
        return None
    known: Type = kind
    return known


def _optional(default: Any, given: dict[str, Any], where: str, faults: Faults) -> bool:
    optional = given.get("optional", default is None)
    if type(optional) is not bool:
        faults.add("must be true or false", f"{where}.optional")
        return True
    return optional


def _limit(key: str, kind: Type, given: dict[str, Any], where: str, faults: Faults) -> float | None:
    limit = given.get(key)
    if limit is None:
        return None
    if type(limit) not in (int, float) or kind not in ("int", "float") or plain_faults(limit, where):
        faults.add("must be a number, and is only for options that are numbers", f"{where}.{key}")
        return None
    number: float = limit
    return number


def _choices(path: str, kind: Type, given: dict[str, Any], where: str, faults: Faults) -> tuple[Any, ...]:
    choices = given.get("choices", [])
    if path == "job.type" and choices:
        faults.add("cannot be limited: it names the recipe", f"{where}.choices", "leave the choices out")
    elif not isinstance(choices, list) or not all(_fits(choice, kind) for choice in choices):
        faults.add(f"must be a list, each item {WANTED[kind]}", f"{where}.choices", "quote what shall be text")
    else:
        return tuple(choices)
    return ()


def _fits(choice: Any, kind: Type) -> bool:
    return type_of(choice) in ((kind, "int") if kind == "float" else (kind,))


def _items(kind: Type, given: dict[str, Any], where: str, faults: Faults) -> Type | None:
    items: Any = given.get("items")
    if items is None or (items in TYPES and kind == "list"):
        known: Type | None = items
        return known
    faults.add(f"must be one of {', '.join(TYPES)}, for a list", f"{where}.items", did_you_mean(items, TYPES))
    return None


def _reference(kind: Type, given: dict[str, Any], where: str, faults: Faults) -> ReferenceKind | None:
    reference: Any = given.get("reference")
    if reference is None or (reference in REFERENCE_KINDS and kind == "str"):
        known: ReferenceKind | None = reference
        return known
    faults.add(
        f"must be one of {', '.join(REFERENCE_KINDS)}, for text or a list of texts",
        f"{where}.reference",
        did_you_mean(reference, REFERENCE_KINDS),
    )
    return None


def _with_checked_default(option: Option, faults: Faults) -> Option:
    default, wrong = option.check(option.default, at(f"config.{option.path}"))
    faults.found += wrong
    return msgspec.structs.replace(option, default=default)
