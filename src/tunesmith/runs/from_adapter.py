"""A training whose model is an adapter goes on from it: its base and its shape become part of the config.

With the base in there, whoever looks for what an unfinished run uses finds it. Recipes that cannot go on from an adapter have no
option for its base, and nothing is done for them. What a reference leads to is decided in ``references``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunesmith.contract.manifest import value_at
from tunesmith.errors import Fault, InvalidInput
from tunesmith.recipes import Origin, Recipe, ResolvedConfig
from tunesmith.references import ResolvedAdapter

ADAPTER_BASE = "model.adapter_base"
_ASKED = (Origin.TRAIN_CONFIG, Origin.HYPERPARAMS)
"""Whose values somebody has asked for; what an earlier run was filled in with does not count."""


def take_over(
    recipe: Recipe, config: ResolvedConfig, origins: dict[str, Origin], adapter: ResolvedAdapter | None
) -> None:
    """Put the base and the shape of the adapter into ``config``; None: the model is no adapter.

    Raises:
        InvalidInput: with every option that asks for another shape, or names a base.
    """
    if ADAPTER_BASE not in recipe.schema:
        return
    if adapter is None:
        if value_at(config, ADAPTER_BASE) is not None:
            raise _refused(_named_base("the model is no adapter, so it has no other base"))
        return
    faults = tuple(_faults(recipe, config, origins, adapter))
    if faults:
        raise _refused(*faults)
    for path, own in _own(recipe, adapter):
        if own is not None and value_at(config, path) != own:
            section, _, option = path.partition(".")
            config[section][option] = own
            origins[path] = Origin.REQUEST


def _own(recipe: Recipe, adapter: ResolvedAdapter) -> Iterator[tuple[str, Any]]:
    """What the adapter says, by option; None where it says nothing that the option can hold."""
    yield ADAPTER_BASE, adapter.base
    for name, value in adapter.shape.items():
        option = recipe.schema.get(f"lora.{name}")
        if option is not None:
            checked, faults = option.check(value, option.path)
            yield option.path, None if faults else checked


def _faults(
    recipe: Recipe, config: ResolvedConfig, origins: dict[str, Origin], adapter: ResolvedAdapter
) -> Iterator[Fault]:
    asked = {path: value_at(config, path) for path, origin in origins.items() if origin in _ASKED}
    if asked.get(ADAPTER_BASE, adapter.base) not in (None, adapter.base):
        yield _named_base(f"the base of the adapter is {adapter.base}, as its adapter_config.json says")
    for name, own in adapter.shape.items():
        path = f"lora.{name}"
        if path in recipe.schema and own is not None and path in asked and not _same(asked[path], own):
            yield Fault(
                message=f"asks for {_shown(asked[path])}, and the adapter has {_shown(own)}",
                where=path,
                mend="leave it out: training goes on with the adapter's own shape; or start from its base",
            )


def _same(asked: Any, own: Any) -> bool:
    if isinstance(asked, list) and isinstance(own, list):
        return set(map(str, asked)) == set(map(str, own))
    return bool(asked == own)


def _shown(value: Any) -> str:
    text = f"[{', '.join(sorted(map(str, value)))}]" if isinstance(value, list) else str(value)
    return text if len(text) <= 300 else text[:300] + "..."


def _named_base(message: str) -> Fault:
    return Fault(message=message, where=ADAPTER_BASE, mend="leave it out; the service sets it")


def _refused(*faults: Fault) -> InvalidInput:
    return InvalidInput("training cannot go on from this model as asked", where=faults[0].where, faults=faults)
