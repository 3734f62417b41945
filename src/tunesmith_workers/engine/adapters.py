"""Several LoRA adapters on one base, in one batch: each token gets the update of its own adapter (arXiv:2106.09685).

Adapters stay beside the base weights, so that a token is computed as its adapter was trained: ``x W' + s (x A') B'``. A step
with one adapter costs two narrow products for each layer; one with several multiplies by all of them at once, and a mask
keeps what belongs to the token (the gathered products of arXiv:2310.18547, in their plain form).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from tunesmith_workers.engine.batch import NO_ADAPTER, StepBatch
from tunesmith_workers.process.faults import ModelUnavailable

_HOOKED = "_adds_adapters_of_the_engine"
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_decode_config = msgspec.json.Decoder(dict[str, Any]).decode
_UNKNOWN = (
    "use_dora",
    "modules_to_save",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
)
"""What an adapter may have beside plain LoRA; all of it changes what has to be computed."""


class Update(msgspec.Struct, frozen=True):
    """What one adapter adds to one layer."""

    down: Tensor
    """A: (rank, inputs)."""
    up: Tensor
    """B: (outputs, rank)."""
    scale: float


class Adapter(msgspec.Struct, frozen=True):
    """One that is loaded: its updates by the names of the layers."""

    name: str
    folder: str
    updates: Mapping[str, Update]


def read_adapter(name: str, folder: str, model: nn.Module) -> Adapter:
    """Read an adapter for a model that is loaded.

    Raises:
        ModelUnavailable: it is missing, is not plain LoRA, or does not fit the model.
    """
    path = Path(folder)
    try:
        config = _decode_config((path / _CONFIG).read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ModelUnavailable(
            f"no adapter can be read there: {error}", where=folder, mend="name a folder with one"
        ) from error
    unknown = [option for option in _UNKNOWN if config.get(option)]
    if config.get("bias", "none") != "none":
        unknown.append("bias")
    if config.get("peft_type") != "LORA" or unknown:
        raise ModelUnavailable(
            f"it is {', '.join(unknown) or config.get('peft_type')}, and only plain LoRA is added to a base that is served",
            where=folder,
            mend="merge it into its base and serve that: recipe merge",
        )
    return Adapter(name, folder, _updates(path / _WEIGHTS, config, model))


def _updates(weights: Path, config: Mapping[str, Any], model: nn.Module) -> dict[str, Update]:
    from safetensors.torch import load_file  # noqa: PLC0415  # only adapters need it

    try:
        found = load_file(weights)
    except Exception as error:  # the library raises an exception of its own in Rust, and OSError
        raise ModelUnavailable(
            f"its weights cannot be read: {error}", where=str(weights), mend="train it again"
        ) from error
    down = {_layer(key): value for key, value in found.items() if key.endswith(".lora_A.weight")}
    up = {_layer(key): value for key, value in found.items() if key.endswith(".lora_B.weight")}
    if down.keys() != up.keys() or len(down) + len(up) != len(found):
        raise ModelUnavailable(
            "its weights are not plain LoRA", where=str(weights), mend="serve it merged: recipe merge"
        )
    return {layer: _update(layer, down[layer], up[layer], config, model) for layer in down}


def _layer(key: str) -> str:
    return key.removeprefix("base_model.model.").rpartition(".lora_")[0]


def _update(layer: str, down: Tensor, up: Tensor, config: Mapping[str, Any], model: nn.Module) -> Update:
    try:
        base = model.get_submodule(layer)
    except AttributeError:
        base = None
    fits = type(base) is nn.Linear and (down.shape[1], up.shape[0]) == (base.in_features, base.out_features)
    if not fits or down.shape[0] != up.shape[1] or not isinstance(base, nn.Linear):
        raise ModelUnavailable(
            f"it has an update for {layer}, which does not fit this base",
            where=layer,
            mend="serve it on the base it was trained on",
        )
    rank = down.shape[0]
    alpha = float(_of_layer(config.get("alpha_pattern") or {}, layer, config.get("lora_alpha") or rank))
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    dtype, device = base.weight.dtype, base.weight.device
    return Update(down.to(device, dtype), up.to(device, dtype), scale)


def _of_layer(patterns: Mapping[str, Any], layer: str, default: Any) -> Any:
    from peft.utils.other import get_pattern_key  # noqa: PLC0415  # slow to import; only adapters need it

    return patterns.get(get_pattern_key(list(patterns), layer), default)


class AdapterBank:
    """The adapters that are loaded, by number, and which of them the current step needs."""

    def __init__(self) -> None:
        self._adapters: dict[int, Adapter] = {}
        self._next = 0
        self.version = 0
        """Changes whenever an adapter comes or goes."""
        self.one: int = NO_ADAPTER
        """The adapter of every token of this step."""
        self.of_tokens: Tensor | None = None
        """(tokens,): where the adapter of each token is in ``numbers``, from 1 on, and 0 for none; None where all have the same."""

    def add(self, adapter: Adapter) -> int:
        number, self._next = self._next, self._next + 1
        self._adapters[number] = adapter
        self.version += 1
        return number

    def remove(self, number: int) -> None:
        del self._adapters[number]
        self.version += 1

    def begin(self, batch: StepBatch) -> None:
        """What is computed from now on belongs to this step."""
        chosen = set(batch.adapters)
        self.of_tokens = None
        if len(chosen) > 1:
            places = {number: place for place, number in enumerate(self._adapters, 1)}
            self.of_tokens = torch.tensor([places.get(it, 0) for it in batch.adapters], device=batch.device)
        self.one = NO_ADAPTER if len(chosen) > 1 else next(iter(chosen), NO_ADAPTER)

    def keep(self, places: Tensor) -> None:
        """From now on, of the tokens of this step only these are computed."""
        if self.of_tokens is not None:
            self.of_tokens = self.of_tokens[places]

    @property
    def idle(self) -> bool:
        return self.of_tokens is None and self.one == NO_ADAPTER

    def of(self, number: int) -> Adapter:
        return self._adapters[number]

    @property
    def numbers(self) -> list[int]:
        return list(self._adapters)


class Layer:
    """The updates of one layer, or of several whose outputs are computed side by side by one product."""

    def __init__(self, bank: AdapterBank, names: Sequence[str], outputs: Sequence[int]) -> None:
        """``names`` are of layers with the same input; ``outputs`` is how many each has."""
        self._bank, self._names, self._outputs = bank, names, outputs
        self._made_for = -1
        self._single: dict[int, tuple[Tensor, Tensor, Tensor | float]] = {}
        self._all: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def idle(self) -> bool:
        """Whether no token of this step has an adapter."""
        return self._bank.idle

    def add(self, x: Tensor, output: Tensor) -> Tensor:
        """``output`` with the update for ``x`` added in place: (tokens, inputs) and (tokens, outputs)."""
        bank = self._bank
        if bank.idle:
            return output
        if self._made_for != bank.version:
            self._make()
        if bank.of_tokens is None:
            mine = self._single.get(bank.one)
            if mine is None:
                return output
            down, up, scale = mine
            return output.addmm_((x @ down).mul_(scale), up)
        if self._all is None:
            return output
        down, up, scales = self._all
        return output.addmm_((x @ down).mul_(scales[bank.of_tokens]), up)

    def _make(self) -> None:
        self._made_for, self._single, self._all = self._bank.version, {}, None
        parts: list[tuple[int, Tensor, Tensor, Tensor]] = []
        for place, number in enumerate(self._bank.numbers, 1):
            found = [self._bank.of(number).updates.get(name) for name in self._names]
            if any(found):
                down, up, scales = _side_by_side(found, self._outputs)
                same = bool((scales == scales[0]).all())
                self._single[number] = down, up, float(scales[0]) if same else scales
                parts.append((place, down, up, scales))
        if parts:
            self._all = _of_all(parts, len(self._bank.numbers))


def _of_all(parts: Sequence[tuple[int, Tensor, Tensor, Tensor]], adapters: int) -> tuple[Tensor, Tensor, Tensor]:
    """The updates of several adapters as one: (inputs, ranks), (ranks, outputs), and by the place of each adapter the scale of its own
    ranks, 0 for those of others: (1 + adapters, ranks).
    """
    down, up = torch.cat([part[1] for part in parts], 1), torch.cat([part[2] for part in parts], 0)
    scales = down.new_zeros(1 + adapters, down.shape[1])
    begin = 0
    for place, _, _, own in parts:
        scales[place, begin : begin + len(own)] = own
        begin += len(own)
    return down, up, scales


def _side_by_side(found: Sequence[Update | None], outputs: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Updates as one: (inputs, ranks), (ranks, outputs) with each rank in the columns of its layer, scales (ranks,)."""
    there = [update for update in found if update is not None]
    total = sum(len(update.down) for update in there)
    up = there[0].up.new_zeros(total, sum(outputs))
    row = column = 0
    for update, size in zip(found, outputs, strict=True):
        if update is not None:
            rank = len(update.down)
            up[row : row + rank, column : column + size] = update.up.t()
            row += rank
        column += size
    down = torch.cat([update.down for update in there]).t().contiguous()
    scales = torch.cat([torch.full((len(update.down),), update.scale) for update in there])
    return down, up, scales.to(down.device, down.dtype)


def hook(model: nn.Module, bank: AdapterBank) -> None:
    """Have every linear layer of a model add the updates of the bank. Once is enough."""
    for name, module in model.named_modules():
        if type(module) is nn.Linear and not getattr(module, _HOOKED, False):
            setattr(module, _HOOKED, True)
            layer = Layer(bank, [name], [module.out_features])
            module.register_forward_hook(_adding(layer))


def _adding(layer: Layer) -> Any:
    def add(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if layer.idle:
            return None
        x = given[0]
        added = layer.add(x.reshape(-1, x.shape[-1]), output.reshape(-1, output.shape[-1]))
        return added.view(output.shape)

    return add
