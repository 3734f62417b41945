"""The key/value cache: a row of memory for each slot, written once for each token, and attention over it.

Every slot has room for the longest sequence. On a CPU the system gives memory only to what is written.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tunesmith_workers.engine.batch import Piece, StepBatch

NAME = "tunesmith_slots"

_HARMLESS = frozenset({"position_ids", "use_cache", "cache_position", "is_causal", "output_attentions"})
_MOST_WASTED = 2.0
"""Slots attend together, as if all were as long as the longest, while that costs at most so many times what is needed ..."""
_LITTLE = 2048
"""... or so many tokens more: little enough to be cheaper than attending one after the other."""
_FEW_TOKENS = 16
"""A piece of so many is computed as if the heads of a key were more tokens, so that no key is repeated."""


class Slots:
    """Keys and values of every layer, made when a layer is first computed."""

    def __init__(self, slots: int, longest: int) -> None:
        self.slots, self.longest = slots, longest
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._batch: StepBatch | None = None
        self._mask: Tensor | None = None
        self._masks: dict[int, Tensor] = {}
        self._together = False

    def begin(self, batch: StepBatch) -> None:
        """What is computed from now on belongs to this step."""
        self._batch, self._mask, self._masks = batch, None, {}  # a mask is the same for all layers
        singles = batch.pieces[: batch.singles]
        slots = [piece.slot for piece in singles]
        self._reach = max((piece.end for piece in singles), default=0)
        self._first, self._end = min(slots, default=0), max(slots, default=-1) + 1
        spread = (self._end - self._first) * self._reach
        self._together = spread <= _MOST_WASTED * sum(piece.end for piece in singles) + _LITTLE
        self._alone = batch.singles == len(batch.pieces)
        self._in_order = slots == list(range(self._first, self._end))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Keep keys and values, and attend each token to all before it in its slot.

        Args:
            layer: its number.
            query: (tokens, heads, size).
            key: (tokens, key heads, size); a key serves several heads.
            value: (tokens, key heads, size of the values).
            scale: of the scores; None for one by the root of the size.

        Returns:
            (tokens, heads, size of the values).
        """
        batch = self._batch
        assert batch is not None
        keys, values = self._kept(layer, key, value)
        keys[batch.slots, :, batch.positions] = key
        values[batch.slots, :, batch.positions] = value
        if self._alone and self._together:
            return self._singles(query, keys, values, scale)
        result = query.new_empty(*query.shape[:2], value.shape[-1])
        if batch.singles and self._together:
            result[: batch.singles] = self._singles(query[: batch.singles], keys, values, scale)
        elif batch.singles:
            for place, piece in enumerate(batch.pieces[: batch.singles]):
                result[place : place + 1] = _of_piece(query[place : place + 1], keys, values, piece, scale, None)
        for number, (piece, places) in enumerate(batch.longer()):
            mask = self._mask_of_piece(number, piece, query)
            result[places] = _of_piece(query[places], keys, values, piece, scale, mask)
        return result

    def copy(self, source: int, target: int, length: int) -> None:
        """Have the first tokens of one slot in another, too."""
        for kept in self._layers.values():
            for states in kept:
                states[target, :, :length] = states[source, :, :length]

    def _kept(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        kept = self._layers.get(layer)
        if kept is None:
            keys, values = (
                _zeros((self.slots, states.shape[1], self.longest, states.shape[2]), states) for states in (key, value)
            )
            kept = self._layers[layer] = keys, values
        return kept

    def _singles(self, query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
        """Of slots that are given one token each: all of them at once."""
        batch = self._batch
        assert batch is not None
        heads, size = query.shape[1:]
        rows = self._end - self._first
        if self._mask is None:
            self._mask = self._mask_of(query.dtype)
        if not self._in_order:
            query = query.new_zeros(rows, heads, size).index_copy_(0, self._places, query)
        asking = query.view(rows, keys.shape[1], -1, size)
        seen_keys, seen_values = (states[self._first : self._end, :, : self._reach] for states in (keys, values))
        found = scaled_dot_product_attention(asking, seen_keys, seen_values, self._mask, scale=scale)
        by_slot = found.reshape(rows, heads, -1)
        return by_slot if self._in_order else by_slot[self._places]

    def _mask_of(self, dtype: torch.dtype) -> Tensor:
        """What is added to the scores: (slots, 1, 1, reach). A slot without a token sees its first one, and is not read."""
        batch = self._batch
        assert batch is not None
        self._places = batch.slots[: batch.singles] - self._first
        last = torch.zeros(self._end - self._first, dtype=torch.long, device=batch.device)
        last[self._places] = batch.positions[: batch.singles]
        hidden = torch.arange(self._reach, device=batch.device) > last[:, None]
        mask = torch.zeros(hidden.shape, dtype=dtype, device=batch.device)
        return mask.masked_fill_(hidden, float("-inf"))[:, None, None]

    def _mask_of_piece(self, number: int, piece: Piece, query: Tensor) -> Tensor | None:
        """What is added to the scores of a piece: (tokens, end); None where each token sees those before it, and no more."""
        if not piece.start:
            return None
        if number not in self._masks:
            hidden = torch.full((len(piece.tokens), piece.end), float("-inf"), dtype=query.dtype, device=query.device)
            self._masks[number] = hidden.triu_(piece.start + 1)
        return self._masks[number]


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """On a CPU mapped and not touched: the system gives a page when it is written to, whatever malloc was told to keep."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    untouched = mmap.mmap(-1, math.prod(shape) * like.element_size())
    return torch.frombuffer(untouched, dtype=like.dtype).view(shape)


def _of_piece(
    query: Tensor, keys: Tensor, values: Tensor, piece: Piece, scale: float | None, mask: Tensor | None
) -> Tensor:
    """(tokens, heads, size) of one piece, each token to all before it."""
    tokens, heads, size = query.shape
    seen_keys, seen_values = (states[piece.slot, :, : piece.end] for states in (keys, values))
    groups = heads // len(seen_keys)
    if tokens <= _FEW_TOKENS and (mask is not None or tokens == 1):
        # The heads of a key stand for more tokens: nothing has to be repeated.
        asking = query.view(tokens, -1, groups, size).permute(1, 2, 0, 3).reshape(1, -1, groups * tokens, size)
        repeated = mask.repeat(groups, 1) if mask is not None else None
        found = scaled_dot_product_attention(asking, seen_keys[None], seen_values[None], repeated, scale=scale)
        return found.view(-1, groups, tokens, found.shape[-1]).permute(2, 0, 1, 3).reshape(tokens, heads, -1)
    seen_keys, seen_values = (states.repeat_interleave(groups, 0)[None] for states in (seen_keys, seen_values))
    found = scaled_dot_product_attention(
        query.transpose(0, 1)[None], seen_keys, seen_values, mask, is_causal=mask is None and tokens > 1, scale=scale
    )
    return found[0].transpose(0, 1)


def slot_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tunesmith_slots: Slots | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend over ``tunesmith_slots``: an attention as transformers calls it, for one packed sequence.

    ``query`` is (1, heads, tokens, size); returned are (1, tokens, heads, size of the values), and no weights.

    Raises:
        ValueError: the model asks for something else, such as a window, caps, sinks or a mask of its own.
    """
    given = {name for name, value in others.items() if value is not None and value is not False}
    if tunesmith_slots is not None and (others.get("sliding_window") or 0) >= tunesmith_slots.longest:
        given.remove("sliding_window")  # everything is within it
    asked = sorted(given - _HARMLESS)
    if attention_mask is not None:
        asked.append("attention_mask")
    layer = getattr(module, "layer_idx", None)
    if tunesmith_slots is None or dropout or asked or layer is None or not getattr(module, "is_causal", True):
        raise ValueError(f"attention over slots does not know {', '.join(asked) or 'what is asked for'}")
    asking, keys, values = (states[0].transpose(0, 1) for states in (query, key, value))
    return tunesmith_slots.attend(layer, asking, keys, values, scaling)[None], None


AttentionInterface.register(NAME, slot_attention)
