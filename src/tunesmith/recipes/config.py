"""Defaults <- train config <- request <- what the server fills in: one resolved config, or every fault at once.

A train config is nested by sections, and may use the recipe's aliases. A request may also write
``training.learning_rate``, or a bare ``learning_rate`` where that is the only option of the name. Nothing is read from disk
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from tunesmith.errors import Fault, InvalidInput
from tunesmith.recipes.options import plain_faults
from tunesmith.recipes.recipe import Recipe
from tunesmith.recipes.suggest import described, nearest, shortened

ResolvedConfig: TypeAlias = dict[str, Any]
"""Nested as the recipe's ``config``, with every option present; plain values only."""

MOST_FAULTS = 100
"""A request with more faults than this gets the first ones and their number: finding near names takes time."""


def resolve(
    recipe: Recipe,
    *,
    train_config: Mapping[str, Any] | None = None,
    request: Mapping[str, Any] | None = None,
    filled: Mapping[str, Any],
    places: tuple[str, str] = ("train_config", "hyperparams"),
) -> ResolvedConfig:
    """Merge the layers; later ones win.

    Args:
        recipe: gives the options and their defaults.
        train_config: overrides nested by sections. ``job.type`` in it chooses the recipe and must name this one.
        request: overrides in any spelling.
        filled: what the server sets, by dotted path. Not checked against the option, and added where there is none.
        places: how the faults call the train config and the request's overrides.

    Raises:
        InvalidInput: with every fault, ``where`` being such as ``hyperparams.learning_rte``.
    """
    names = _Names(recipe)
    below = _Layer(recipe, names, places[0], short_names=False)
    below.read(train_config or {})
    above = _Layer(recipe, names, places[1], short_names=True)
    above.read(request or {})
    values = {path: option.default for path, option in recipe.schema.items()}
    values |= below.values | above.values | {path: _plain(value) for path, value in filled.items()}
    faults = below.faults + above.faults + _unwritable(filled)
    refused = below.refused | above.refused
    faults += [
        Fault(message="must be given", where=path, mend=f"set it in {places[1]} or in {places[0]}")
        for path, option in recipe.schema.items()
        if option.required and values[path] is None and path not in refused
    ]
    if faults:
        raise _refusal(recipe, faults)
    return _nested(recipe, values)


def value_named(recipe: Recipe, train_config: Mapping[str, Any], path: str) -> Any:
    """What a train config gives for an option, under whichever name; None where it gives nothing that could be used."""
    layer = _Layer(recipe, _Names(recipe), "train_config", short_names=False)
    layer.read(train_config)
    return layer.values.get(path)


def overridden(recipe: Recipe, overrides: Mapping[str, Any], *, short_names: bool) -> dict[str, Any]:
    """What overrides give, by dotted path; what of them is at fault is left out. ``short_names`` as a request may have."""
    layer = _Layer(recipe, _Names(recipe), "", short_names=short_names)
    layer.read(overrides)
    return layer.values


def recipe_name_from(train_config: Mapping[str, Any] | None) -> str | None:
    """The recipe that a train config names by ``job.type`` (for ``rl``: by ``job.method``), or None.

    Raises:
        InvalidInput: ``job`` is there but does not make sense.
    """
    job = (train_config or {}).get("job")
    if job is None:
        return None
    if not isinstance(job, Mapping):
        raise InvalidInput(f"must be a mapping, not {described(job)}", where="train_config.job")
    name, key = job.get("type"), "type"
    if name == "rl":
        name, key = job.get("method"), "method"
        if name is None:
            raise InvalidInput(
                "job.type rl needs a method", where="train_config.job.method", mend="add, for example, `method: dpo`"
            )
    if name is None or (isinstance(name, str) and name):
        return name
    raise InvalidInput(
        f"must be the name of a recipe, not {described(name)}", where=f"train_config.job.{key}", mend="such as lora"
    )


class _Names:
    """Which options, groups of options and short names a recipe has."""

    def __init__(self, recipe: Recipe) -> None:
        self.aliases = recipe.aliases
        self.groups = set(recipe.config)
        self.by_leaf: dict[str, list[str]] = {}
        for path in recipe.schema:
            group = path
            while "." in group:
                self._add_leaf(group)
                group = group.rpartition(".")[0]
                if group in self.groups:
                    break
                self.groups.add(group)

    def _add_leaf(self, path: str) -> None:
        self.by_leaf.setdefault(path.rpartition(".")[2], []).append(path)

    def meant_by(self, name: str) -> list[str]:
        """The paths that a short name stands for."""
        if name in self.aliases:
            return [self.aliases[name]]
        group, _, alias = name.rpartition(".")
        target = self.alias_in(group, alias)
        return [target] if target else self.by_leaf.get(name, [])

    def alias_in(self, group: str, alias: str) -> str | None:
        """The path that an alias stands for inside a group: ``alpha`` below ``lora`` is ``lora.lora_alpha``.

        Only where the path lies in that group: ``batch_size`` below ``evaluation`` must not change the training's.
        """
        target = self.aliases.get(alias)
        return target if target is not None and target.startswith(f"{group}.") else None

    def near(self, name: str, group: str) -> str | None:
        """The path of the most similar name, in ``group`` first."""
        exact = self.meant_by(name)
        if exact:
            return exact[0]
        within = {
            path.rpartition(".")[2]: path for paths in self.by_leaf.values() for path in paths if _in(path, group)
        }
        leaf = name.rpartition(".")[2]
        if group and (close := nearest(leaf, within)):
            return within[close]
        everywhere = {path: path for paths in self.by_leaf.values() for path in paths}
        everywhere |= {leaf: paths[0] for leaf, paths in self.by_leaf.items()} | self.aliases
        everywhere |= {section: section for section in self.groups if "." not in section}
        close = nearest(name, everywhere) or nearest(leaf, everywhere)
        return everywhere[close] if close else None


def _in(path: str, group: str) -> bool:
    return path.rpartition(".")[0] == group


class _Layer:
    """Overrides from one place, found by name and checked."""

    def __init__(self, recipe: Recipe, names: _Names, place: str, *, short_names: bool) -> None:
        self.values: dict[str, Any] = {}
        self.faults: list[Fault] = []
        self.refused: set[str] = set()
        """Options that were given, wrongly."""
        self._recipe = recipe
        self._names = names
        self._place = place
        self._short_names = short_names
        self._given_at: dict[str, str] = {}

    def read(self, overrides: Mapping[str, Any]) -> None:
        for key, value in overrides.items():
            name = str(key)
            where = f"{self._place}.{shortened(name)}"
            if name in self._names.groups and not self._is_leaf_instead(name, value):
                self._read_group(name, value, where)
            elif self._short_names or name in self._names.aliases:
                self._read_short(name, value, where)
            else:
                self._unknown(name, "", where)
        self._check_job()

    def _is_leaf_instead(self, name: str, value: Any) -> bool:
        """Whether a name that is both a section's and an option's means the option here."""
        return self._short_names and not isinstance(value, Mapping) and name in self._names.by_leaf

    def _read_group(self, group: str, content: Any, where: str) -> None:
        if content is None and not self._short_names:
            return  # a section whose lines are all commented out
        if not isinstance(content, Mapping):
            self._fault(f"must be a mapping, not {described(content)}", where, f"its options go below {group}")
            return
        for key, value in content.items():
            path, place = f"{group}.{key}", f"{where}.{shortened(str(key))}"
            if path not in self._recipe.schema and path not in self._names.groups:
                path = self._names.alias_in(group, str(key)) or path
            if path in self._recipe.schema:
                self._take(path, value, place)
            elif path in self._names.groups:
                self._read_group(path, value, place)
            else:
                self._unknown(str(key), group, place)

    def _read_short(self, name: str, value: Any, where: str) -> None:
        paths = [name] if name in self._recipe.schema else self._names.meant_by(name)
        if not paths:
            self._unknown(name, "", where)
        elif len(paths) > 1:
            self._fault(f"could be any of {', '.join(paths)}", where, f"write the full name, such as {paths[0]}")
        elif paths[0] in self._recipe.schema:
            self._take(paths[0], value, where)
        else:
            self._read_group(paths[0], value, where)

    def _take(self, path: str, value: Any, where: str) -> None:
        value, faults = self._recipe.schema[path].check(value, where)
        self.faults += faults
        if faults:
            self.refused.add(path)
        elif path not in self.values:
            self.values[path], self._given_at[path] = value, where
        elif self.values[path] != value:
            self._fault(f"sets {path}, which {self._given_at[path]} sets to another value", where, "keep one of them")

    def _unknown(self, name: str, group: str, where: str) -> None:
        if len(self.faults) >= MOST_FAULTS:
            self.faults.append(Fault(message="no such option", where=where))
            return
        path = self._names.near(name, group)
        mend = f"did you mean {path}?" if path else f"`tunesmith recipes show {self._recipe.name}` lists its options"
        if path and not self._short_names and not group and "." in path:
            section, _, option = path.partition(".")
            mend = f"a train config is nested by sections: write `{option}` below `{section}:`"
        what = "no such section" if not group and not self._short_names else "no such option"
        self._fault(f"{what} in recipe {self._recipe.name}", where, mend)

    def _check_job(self) -> None:
        """``job.type`` chooses a recipe, which has happened: it must agree, and the resolved config keeps the recipe's."""
        default = self._recipe.schema["job.type"].default
        chosen = self.values.pop("job.type", None)
        if chosen == "rl":
            chosen = self.values.get("job.method")
        if chosen not in (None, self._recipe.name, default):
            self._fault(
                f"names the recipe {shortened(chosen)}, but the run uses {self._recipe.name}",
                self._given_at["job.type"],
                "name one of them only",
            )

    def _fault(self, message: str, where: str, mend: str | None) -> None:
        self.faults.append(Fault(message=message, where=where, mend=mend))


def _unwritable(filled: Mapping[str, Any]) -> list[Fault]:
    return [fault for path, value in filled.items() for fault in plain_faults(_plain(value), path)]


def _refusal(recipe: Recipe, faults: list[Fault]) -> InvalidInput:
    number = len(faults)
    if number > MOST_FAULTS:
        faults = [*faults[:MOST_FAULTS], Fault(message=f"and {number - MOST_FAULTS} more")]
    plural = "one fault" if number == 1 else f"{number} faults"
    return InvalidInput(f"the config for recipe {recipe.name} has {plural}", faults=tuple(faults))


def _nested(recipe: Recipe, values: Mapping[str, Any]) -> ResolvedConfig:
    # Sections first, so that one without options is there, too.
    config: ResolvedConfig = {section: {} for section in recipe.config}
    for path, value in values.items():
        *groups, leaf = path.split(".")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = _plain(value)
    return config


def _plain(value: Any) -> Any:
    """A copy in plain containers: the defaults are shared by all runs."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
