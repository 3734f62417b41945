"""What a training starts from: a whole model, or an adapter with the whole model that it belongs to. Loads no weights.

Only a folder can be an adapter here; what a hub id stands for is taken for a whole model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.process.config import TrainConfig
from tunesmith_workers.process.faults import BadConfig, ModelUnavailable

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_WHERE = "model.base"


class AdapterShape(msgspec.Struct, frozen=True, kw_only=True):
    """What adapter_config.json says that decides how a training goes on from it."""

    peft_type: str | None = None
    task_type: str | None = None
    r: int | None = None
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] | str | None = None
    modules_to_save: tuple[str, ...] | None = None
    bias: str = "none"
    trainable_token_indices: Any = None

    @property
    def trains_copies(self) -> bool:
        """Whether it has weights of the base's own kind: whole modules, biases or embeddings of tokens."""
        return bool(self.modules_to_save) or self.bias != "none" or self.trainable_token_indices is not None


_decode_shape = msgspec.json.Decoder(AdapterShape, strict=False).decode
_decode_config = msgspec.json.Decoder(dict[str, Any]).decode


class StartingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the weights of a training begin."""

    base: str
    """The whole model: a folder or a hub id."""
    adapter: Path | None = None
    """The folder of the adapter that belongs to it; None: the whole model itself is the beginning."""

    @property
    def base_name(self) -> str:
        """What an adapter calls its base: the name it was asked for by, not the place in a cache that it was loaded from."""
        folder = Path(self.base)
        return str(folder.absolute()) if folder.is_dir() else self.base

    @property
    def tokenizer(self) -> str:
        """Where the tokenizer is, with its chat template."""
        return self._own("tokenizer*")

    @property
    def generation_config(self) -> str:
        """Where it is said when to stop generating."""
        return self._own("generation_config.json")

    def _own(self, pattern: str) -> str:
        return str(self.adapter) if self.adapter is not None and any(self.adapter.glob(pattern)) else self.base


def starting_point(config: TrainConfig) -> StartingPoint:
    """What ``model.base`` stands for.

    Raises:
        BadConfig: it is an adapter of an adapter, or as much a whole model as an adapter.
        ModelUnavailable: it is an adapter without weights, or does not name its base.
    """
    folder = Path(config.base)
    if not is_adapter(folder):
        if config.model.adapter_base is not None:
            raise BadConfig(
                f"{config.base} is no adapter, so it has no other base",
                where="model.adapter_base",
                mend="leave it out",
            )
        return StartingPoint(base=config.base)
    _refuse_unclear(folder)
    base = config.model.adapter_base or base_of(folder / ADAPTER_CONFIG)
    if is_adapter(Path(base)):
        raise BadConfig(
            f"the base of this adapter, {base}, is an adapter itself",
            where=f"{_WHERE}: {folder}",
            mend="merge that one into its base first",
        )
    return StartingPoint(base=base, adapter=folder)


def is_adapter(folder: Path) -> bool:
    """Whether there is an adapter in the folder."""
    return (folder / ADAPTER_CONFIG).is_file()


def shape_of(adapter: Path) -> AdapterShape:
    """What an adapter says of its shape. Raises ModelUnavailable."""
    file = adapter / ADAPTER_CONFIG
    try:
        return _decode_shape(file.read_bytes())
    except (OSError, UnicodeError, msgspec.DecodeError) as error:
        raise ModelUnavailable(f"cannot be read: {error}", where=str(file), mend="train it again") from error


def base_of(adapter: Path) -> str:
    """The model that an adapter belongs to, as its adapter_config.json names it. Raises ModelUnavailable."""
    try:
        found = _decode_config(adapter.read_bytes()).get("base_model_name_or_path")
    except (OSError, UnicodeError, msgspec.DecodeError) as error:
        raise ModelUnavailable(f"cannot be read: {error}", where=str(adapter), mend="train it again") from error
    if not isinstance(found, str) or not found:
        raise ModelUnavailable(
            "does not name the model it adapts", where=str(adapter), mend="set base_model_name_or_path in it"
        )
    return found


def _refuse_unclear(folder: Path) -> None:
    others = [file.name for file in folder.glob("*.safetensors") if not file.name.startswith("adapter_model")]
    if others:
        raise BadConfig(
            f"holds an adapter and a whole model ({min(others)}), and training starts from one of them",
            where=f"{_WHERE}: {folder}",
            mend="name a folder with the one that is meant",
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelUnavailable(
            "the adapter has no weights in safetensors", where=str(folder), mend="save it with safetensors"
        )
