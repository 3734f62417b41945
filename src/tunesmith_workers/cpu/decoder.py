"""A Llama-shaped model as straight-line code for serving: the same numbers in fewer and larger operations.

Products that read the same input are one product, weights are prepacked where oneDNN can, a norm is six operations. Attention
and the key/value cache are those of the engine. Taken only where the model has exactly these parts; the engine verifies it
against the model before it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from tunesmith_workers.cpu.prepacked import PackedProduct
from tunesmith_workers.engine.adapters import AdapterBank, Layer
from tunesmith_workers.engine.batch import Piece, StepBatch
from tunesmith_workers.engine.slots import Slots
from tunesmith_workers.models.structure import sees_by_position

_LINEAR = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
_PARTS = frozenset({"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"})


class Decoder:
    """Computes steps."""

    shares_prefixes = True
    splits_prompts = True

    def __init__(self, model: Any, bank: AdapterBank, slots: int, longest: int) -> None:
        self.slots, self.longest = slots, longest
        self._bank, self._cache = bank, Slots(slots, longest)
        inner = model.model
        self._embedding: Tensor = inner.embed_tokens.weight
        self._blocks = [_Block(number, block, bank) for number, block in enumerate(inner.layers)]
        self._layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        self._norm = _Norm(inner.norm)
        self._head = _Product(bank, ["lm_head"], [model.lm_head])
        cosine, sine = inner.rotary_emb(self._embedding[:1], torch.arange(longest)[None])
        half = cosine.shape[-1] // 2
        self._cosine = cosine[0]
        self._sine = torch.cat((-sine[0, :, :half], sine[0, :, half:]), -1)

    @torch.inference_mode()
    def step(self, pieces: Sequence[Piece]) -> Tensor:
        batch = StepBatch(pieces, self._embedding.device)
        self._cache.begin(batch)
        self._bank.begin(batch)
        x = self._embedding[batch.ids]
        turn = self._cosine[batch.positions][:, None], self._sine[batch.positions][:, None]
        for block in self._blocks:
            x = block.compute(x, turn, self._cache)
        if batch.last is not None:
            x = x[batch.last]
            self._bank.keep(batch.last)
        return batch.in_order(self._head(self._norm(x)), pieces)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        self._cache.copy(source, target, length)

    def drop(self, slot: int) -> None: ...

    def keep_only_own(self) -> None:
        """The model's weights are here in another form, all but the embedding; its layers keep their shapes."""
        for layer in self._layers:
            if layer.weight is not self._embedding:
                layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)


class _Block:
    """One layer: attention and the gated product after it."""

    def __init__(self, number: int, block: Any, bank: AdapterBank) -> None:
        attention, mlp, name = block.self_attn, block.mlp, f"model.layers.{number}"
        self._number = number
        self._size: int = attention.head_dim
        self._before, self._between = _Norm(block.input_layernorm), _Norm(block.post_attention_layernorm)
        asked = [attention.q_proj, attention.k_proj, attention.v_proj]
        self._heads, self._key_heads = (layer.out_features // self._size for layer in asked[:2])
        self._asked = _Product(bank, [f"{name}.self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj")], asked)
        self._out = _Product(bank, [f"{name}.self_attn.o_proj"], [attention.o_proj])
        gated = [mlp.gate_proj, mlp.up_proj]
        self._gated = _Product(bank, [f"{name}.mlp.{part}" for part in ("gate_proj", "up_proj")], gated)
        self._down = _Product(bank, [f"{name}.mlp.down_proj"], [mlp.down_proj])
        self._wide: int = mlp.gate_proj.out_features
        self._scale: float = attention.scaling
        norms = [getattr(attention, part, None) for part in ("q_norm", "k_norm")]
        self._norms = [_Norm(norm) for norm in norms if norm is not None]

    def compute(self, x: Tensor, turn: tuple[Tensor, Tensor], cache: Slots) -> Tensor:
        """(tokens, width) to the same."""
        asked = self._asked(self._before(x)).view(len(x), -1, self._size)
        both = self._heads + self._key_heads
        turned = self._turned(asked[:, :both], turn)
        found = cache.attend(
            self._number, turned[:, : self._heads], turned[:, self._heads :], asked[:, both:], self._scale
        )
        x = x + self._out(found.reshape(len(x), -1))
        gated = self._gated(self._between(x))
        return x + self._down(silu(gated[:, : self._wide]).mul_(gated[:, self._wide :]))

    def _turned(self, states: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Queries and keys by head, turned by their positions (arXiv:2104.09864)."""
        if self._norms:
            query, key = self._norms
            states = torch.cat((query(states[:, : self._heads]), key(states[:, self._heads :])), 1)
        cosine, sine = turn
        half = self._size // 2
        swapped = torch.cat((states[..., half:], states[..., :half]), -1)
        return torch.addcmul(states * cosine, swapped, sine)


class _Norm:
    """RMSNorm (arXiv:1910.07467), in float32 inside."""

    def __init__(self, module: Any) -> None:
        self._weight: Tensor = module.weight
        self._epsilon = torch.tensor(float(module.variance_epsilon))
        self._share = 1.0 / len(module.weight)

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.addcmul(self._epsilon, length, length, value=self._share).rsqrt_()
        return (x * scale).to(x.dtype).mul_(self._weight)


class _Product:
    """Linear layers with the same input, side by side, and the updates of adapters."""

    def __init__(self, bank: AdapterBank, names: Sequence[str], layers: Sequence[nn.Linear]) -> None:
        weights: list[Tensor] = [layer.weight for layer in layers]
        weight = torch.cat(weights) if len(layers) > 1 else weights[0]
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        self._bias = torch.cat(biases) if biases else None
        self._product = _fastest(weight, self._bias)
        self._updates = Layer(bank, names, [layer.out_features for layer in layers])

    def __call__(self, x: Tensor) -> Tensor:
        return self._updates.add(x, self._product(x))


def _fastest(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    packed = PackedProduct.of(weight)
    if packed is not None:
        return lambda x: packed(x, bias)
    return lambda x: linear(x, weight, bias)


class _Shape(NamedTuple):
    """What of a layer must be as here."""

    biased: bool
    normed: bool


def llama_decoder(model: Any, bank: AdapterBank, slots: int, longest: int) -> Decoder | None:
    """A decoder for a model that has exactly the parts of a Llama; None for any other."""
    return Decoder(model, bank, slots, longest) if _is_llama_shaped(model, longest) else None


def _is_llama_shaped(model: Any, longest: int) -> bool:
    inner = getattr(model, "model", None)
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds - {"full_attention", "sliding_attention"} or sees_by_position(model, longest):
        return False
    if set(dict(model.named_children())) != {"model", "lm_head"}:
        return False
    if inner is None or set(dict(inner.named_children())) != {"embed_tokens", "layers", "norm", "rotary_emb"}:
        return False
    return len({_shape_of(block) for block in inner.layers}) == 1 and _shape_of(inner.layers[0]) is not None


def _shape_of(block: Any) -> _Shape | None:
    """None for a layer that has other parts."""
    if set(dict(block.named_children())) != _PARTS:
        return None
    attention, mlp = block.self_attn, block.mlp
    own = set(dict(attention.named_children())) - set(_LINEAR["self_attn"])
    if own not in (set(), {"q_norm", "k_norm"}) or set(dict(mlp.named_children())) != {*_LINEAR["mlp"], "act_fn"}:
        return None
    layers = [
        getattr(part, name, None)
        for part, names in zip((attention, mlp), _LINEAR.values(), strict=True)
        for name in names
    ]
    if not all(type(layer) is nn.Linear for layer in layers) or type(mlp.act_fn).__name__ not in (
        "SiLU",
        "SiLUActivation",
    ):
        return None
    biases = [layer.bias is not None for layer in layers if layer is not None]
    if len(set(biases[:3])) != 1 or biases[4] != biases[5]:
        return None
    return _Shape(biased=any(biases), normed=bool(own))
