"""What a resolved config names by options that are references: models become paths or hub ids, addresses are vetted.

``model.base`` and the data are resolved from the request itself; see ``request``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from tunesmith.contract.manifest import value_at
from tunesmith.errors import Fault, Forbidden, InvalidInput, MissingReference
from tunesmith.recipes import Recipe, ResolvedConfig
from tunesmith.recipes.options import ReferenceKind
from tunesmith.references import References, gather

_OF_REQUEST = ("model.base", "model.adapter_base")


def resolve_models(recipe: Recipe, config: ResolvedConfig, references: References) -> None:
    """Put into ``config`` what its model references stand for. Blocks on the disk.

    Raises:
        MissingReference: with everything that does not exist, by its place in the config.
        Forbidden: a path outside the allowed roots.
    """
    missing: list[MissingReference | None] = []
    for holder, key, where in _named(recipe, config, "model"):
        try:
            holder[key] = references.model(holder[key])
        except MissingReference as error:
            missing.append(MissingReference(error.message, where=where, mend=error.mend))
        except Forbidden as error:
            raise Forbidden(error.message, where=where, mend=error.mend) from error
    gather(*missing)


def models_used(recipe: Recipe, config: ResolvedConfig) -> tuple[str, ...]:
    """The paths of the models that a resolved config names; not the hub ids."""
    named = [holder[key] for holder, key, _ in _named(recipe, config, "model")]
    found = [*named, *(value_at(config, path) for path in _OF_REQUEST)]
    return tuple(dict.fromkeys(path for path in found if isinstance(path, str) and path.startswith("/")))


async def vet_addresses(recipe: Recipe, config: ResolvedConfig, vet_url: Callable[[str], Awaitable[None]]) -> None:
    """Refuse a run that would send requests to where it must not.

    Raises:
        InvalidInput: with every such address, by its place in the config.
    """
    faults = []
    for holder, key, where in _named(recipe, config, "url"):
        try:
            await vet_url(holder[key])
        except InvalidInput as error:
            faults.append(Fault(message=error.message, where=where, mend=error.mend))
    if faults:
        raise InvalidInput(
            "the config names an address that cannot be used", where=faults[0].where, faults=tuple(faults)
        )


def _named(recipe: Recipe, config: ResolvedConfig, kind: ReferenceKind) -> Iterator[tuple[Any, Any, str]]:
    """The list or mapping that holds each such value, its key in there, and what the config calls it."""
    for path, option in recipe.schema.items():
        if option.reference != kind:
            continue
        *groups, leaf = path.split(".")
        holder: Any = config
        for group in groups:
            holder = holder[group]
        value = holder[leaf]
        if isinstance(value, list):
            yield from ((value, number, f"{path}[{number}]") for number in range(len(value)))
        elif value:
            yield holder, leaf, path
