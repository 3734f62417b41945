"""Where each value of a resolved config comes from, and what the overrides of two requests come to when one adds to the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from tunesmith.recipes.config import overridden
from tunesmith.recipes.recipe import Recipe


class Origin(StrEnum):
    RECIPE = "recipe"  # the recipe's default
    TRAIN_CONFIG = (
        "train_config"  # the train config that the request named, or the one of its dataset or of the service
    )
    HYPERPARAMS = "hyperparams"  # the request's overrides, or those of a run that it resumes from
    REQUEST = "request"  # another field of the request: model, dataset, seed
    SERVICE = "service"  # set by the service itself
    UNKNOWN = "unknown"  # the run is older than this record, and its recipe has changed since


def origins_of(
    recipe: Recipe,
    *,
    train_config: Mapping[str, Any] | None,
    request: Mapping[str, Any],
    filled: Mapping[str, Any],
    by_service: Mapping[str, Any],
) -> dict[str, Origin]:
    """By dotted path, for a config that was resolved from the same layers. Without those that are the recipe's own.

    ``by_service`` are those of ``filled`` that no field of the request says.
    """
    found = dict.fromkeys(overridden(recipe, train_config or {}, short_names=False), Origin.TRAIN_CONFIG)
    found |= dict.fromkeys(overridden(recipe, request, short_names=True), Origin.HYPERPARAMS)
    return found | {path: Origin.SERVICE if path in by_service else Origin.REQUEST for path in filled}


def guessed_origins(
    recipe: Recipe | None, config: Mapping[str, Any], request: Mapping[str, Any], filled: set[str]
) -> dict[str, Origin]:
    """Likewise of a config of which nobody noted it down: from what is on record of the request, and the recipe of today."""
    asked = overridden(recipe, request, short_names=True) if recipe is not None else {}
    defaults = {path: option.default for path, option in recipe.schema.items()} if recipe is not None else {}
    found: dict[str, Origin] = {}
    for path, value in leaves(config, set(defaults)):
        if path in asked:
            found[path] = Origin.HYPERPARAMS
        elif path in filled:
            found[path] = Origin.REQUEST
        elif path not in defaults or defaults[path] != value:
            found[path] = Origin.UNKNOWN
    return found


def leaves(config: Mapping[str, Any], options: set[str], group: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its dotted path. A mapping is one value where it is an option's."""
    for name, value in config.items():
        path = f"{group}.{name}" if group else str(name)
        if isinstance(value, Mapping) and path not in options:
            yield from leaves(value, options, path)
        else:
            yield path, value


def merged_overrides(recipe: Recipe, earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Both, where the later ones win: each as it was written, but what was overridden under another name is left out."""
    replaced = overridden(recipe, later, short_names=True)
    kept: dict[str, Any] = {}
    for name, value in earlier.items():
        meant = overridden(recipe, {name: value}, short_names=True)
        left = {path: one for path, one in meant.items() if path not in replaced}
        kept |= {name: value} if len(left) == len(meant) else left
    return {**kept, **later}
