"""Whether a folder holds a model or an adapter, and of which base. Loads nothing.

What is in such a folder comes from anywhere: an ``adapter_config.json`` names a path, and files may be links. Neither may
lead whoever loads the model to what a request could not name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tunesmith.contract.manifest import read_manifest, value_at
from tunesmith.errors import MissingReference
from tunesmith.files import raise_shortage, read_regular
from tunesmith.references.paths import shown

ADAPTER_CONFIG = "adapter_config.json"
_CONFIG = "config.json"
_ADAPTER_WEIGHTS = "adapter_model"
_ALL = ["all-linear"]
_LARGEST_CONFIG = 1024 * 1024
_MOST_ENTRIES = 10_000

Allowed = Callable[[str, str], Path]
"""From a path and the field that named it to the path with links followed; raises Forbidden outside of what may be read."""


Rank = Annotated[int, msgspec.Meta(ge=1, le=65_536)]


class AdapterConfig(msgspec.Struct):
    """What of adapter_config.json matters here."""

    base_model_name_or_path: str = ""
    r: Rank | None = None
    rank_pattern: dict[str, Rank] | None = None
    lora_alpha: Any = None
    lora_dropout: Any = None
    target_modules: Any = None
    """What an adapter is like does not decide whether it is one: whoever needs these looks whether they make sense."""

    @property
    def rank(self) -> int | None:
        """The largest of its matrices; None where it does not say."""
        return None if self.r is None else max([self.r, *(self.rank_pattern or {}).values()])


_decode_adapter_config = msgspec.json.Decoder(AdapterConfig).decode


def adapter_config_in(folder: Path, where: str, allowed: Allowed) -> AdapterConfig | None:
    """What an adapter says of itself, with a base that it names in any way; None for the folder of a whole model.

    Raises:
        MissingReference: the folder holds neither, or a part of it is missing.
        Forbidden: a file in it is a link to outside of what may be read.
    """
    names = _names_in(folder, where, allowed)
    weights = {name for name in names if name.endswith(".safetensors")}
    of_adapter = {name for name in weights if name.startswith(_ADAPTER_WEIGHTS)}
    if ADAPTER_CONFIG in names and weights == of_adapter:
        if not weights:
            raise _incomplete(
                folder, where, "holds an adapter without weights", f"put {_ADAPTER_WEIGHTS}.safetensors there"
            )
        return _config_in(allowed(str(folder / ADAPTER_CONFIG), where), where)
    if _CONFIG not in names:
        raise _incomplete(folder, where, "holds no model: config.json is missing", "name a folder that holds one")
    if weights == of_adapter:
        raise _incomplete(folder, where, "holds a model without weights", "put its *.safetensors there")
    return None


def base_named_in(folder: Path) -> str | None:
    """What the adapter in the folder names as its base, as it is written there; None where there is no adapter to be read."""
    try:
        found = _decode_adapter_config(read_regular(folder / ADAPTER_CONFIG, _LARGEST_CONFIG))
    except (OSError, msgspec.DecodeError, UnicodeError) as error:
        if isinstance(error, OSError):
            raise_shortage(error)
        return None
    return found.base_model_name_or_path or None


def shape_of(config: AdapterConfig, folder: Path) -> dict[str, Any]:
    """Of an adapter that was found in the folder: ranks and modules in the words of a config; None for what it does not say.

    ``all-linear`` is written down as the modules that it came to, and is what the training's own manifest says.
    """
    asked = value_at(_trained_with(folder), "lora.target_modules")
    return {
        "r": config.r,
        "lora_alpha": _whole(config.lora_alpha),
        "lora_dropout": config.lora_dropout,
        "target_modules": asked if asked == _ALL else _listed(config.target_modules),
    }


def _trained_with(folder: Path) -> dict[str, Any]:
    """The config of the training that wrote it; empty where none of ours did."""
    found = read_manifest(folder, lambda path: read_regular(path, _LARGEST_CONFIG))
    return found.origin.config if found is not None else {}


def _whole(number: Any) -> Any:
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _listed(modules: Any) -> Any:
    return sorted(modules) if isinstance(modules, list) and all(isinstance(one, str) for one in modules) else modules


def _names_in(folder: Path, where: str, allowed: Allowed) -> set[str]:
    """The files in the folder. Links must lead to what may be read."""
    try:
        found = set(_readable(folder, where, allowed))
    except OSError as error:
        raise_shortage(error)
        raise MissingReference(
            f"{shown(str(folder))!r} cannot be read: {error.strerror}", where=where, mend="name a folder with a model"
        ) from error
    return found


def _readable(folder: Path, where: str, allowed: Allowed) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count == _MOST_ENTRIES:
                raise _incomplete(
                    folder, where, f"holds more than {_MOST_ENTRIES} files", "name the model's own folder"
                )
            if entry.is_symlink():
                allowed(entry.path, where)
            if entry.is_file():
                yield entry.name


def _config_in(config: Path, where: str) -> AdapterConfig:
    try:
        found = _decode_adapter_config(read_regular(config, _LARGEST_CONFIG))
    except (OSError, msgspec.DecodeError, UnicodeError) as error:
        if isinstance(error, OSError):
            raise_shortage(error)
        raise MissingReference(
            f"the adapter does not say what its base is: {shown(str(error))}",
            where=where,
            mend=f"mend {shown(str(config))}",
        ) from error
    if not found.base_model_name_or_path:
        raise MissingReference(
            "the adapter does not say what its base is: base_model_name_or_path is empty",
            where=where,
            mend=f"set it in {shown(str(config))}",
        )
    return found


def _incomplete(folder: Path, where: str, what: str, mend: str) -> MissingReference:
    return MissingReference(f"{shown(str(folder))!r} {what}", where=where, mend=mend)
