"""Causal attention over rows that lie side by side in one sequence, and may share their beginning.

The way for short rows computes the scores of a row at once, for all heads that share a key, without repeating keys and
without any copy in float32: on a CPU this takes a fraction of the time of what is made for long rows. Long rows are left
to torch's own attention, which never holds all scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "tunesmith_rows"

SHORT = 192
"""Tokens. Rows of up to so many are short."""

_HARMLESS = frozenset({"position_ids", "use_cache", "cache_position", "is_causal", "output_attentions"})


class Layout:
    """Which tokens of a sequence belong together: ``shared`` ones first, then those of each row in turn.

    A row is the shared tokens and its own ones.
    """

    def __init__(self, shared: int, own: tuple[int, ...]) -> None:
        self.shared = shared
        self.own = own
        self.attended = 0
        """How many times attention was computed for it."""
        self._masks: dict[torch.dtype, Tensor] = {}

    @property
    def longest(self) -> int:
        return self.shared + max(self.own)

    def parts(self) -> Iterator[tuple[slice, int]]:
        """Where the tokens of each part are that attends together, and how many tokens stand before it in its row."""
        if self.shared:
            yield slice(0, self.shared), 0
        start = self.shared
        for length in self.own:
            yield slice(start, start + length), self.shared
            start += length

    def mask(self, length: int, before: int, dtype: torch.dtype) -> Tensor:
        """What is added to the scores of ``length`` tokens after ``before`` others: (length, before + length)."""
        if dtype not in self._masks:
            self._masks[dtype] = torch.full((self.longest, self.longest), float("-inf"), dtype=dtype).triu(1)
        return self._masks[dtype][before : before + length, : before + length]


def row_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  # the signature of an attention in transformers
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within rows, each token to those before it: an attention as transformers calls it.

    ``query`` is (1, heads, tokens, head size), ``key`` and ``value`` have as many heads as the model has of keys, and
    ``layout`` says where rows begin and end. Returned are (1, tokens, heads, head size of the values), and no weights.

    Raises:
        ValueError: the model asks for something else, such as a window, caps or sinks.
    """
    asked = sorted(name for name, given in others.items() if name not in _HARMLESS and given not in (None, False))
    if layout is None or dropout or asked or not getattr(module, "is_causal", True):
        raise ValueError(f"attention in rows does not know {', '.join(asked) or 'what is asked for'}")
    layout.attended += 1
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layout.longest > SHORT:
        return _long(query, key, value, scale, layout), None
    attended: Tensor = _ShortRows.apply(query, key, value, scale, layout)  # type: ignore[no-untyped-call]  # torch's Function is untyped
    return attended, None


AttentionInterface.register(NAME, row_attention)


def _long(query: Tensor, key: Tensor, value: Tensor, scale: float, layout: Layout) -> Tensor:
    """Row by row with torch's own attention."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    rows = []
    for part, before in layout.parts():
        length = part.stop - part.start
        keys, values = (_with_shared(x, part, before) for x in (key, value))
        mask = layout.mask(length, before, query.dtype) if before else None
        rows.append(
            scaled_dot_product_attention(query[:, :, part], keys, values, mask, is_causal=mask is None, scale=scale)
        )
    return torch.cat(rows, 2).transpose(1, 2)


def _with_shared(states: Tensor, part: slice, before: int) -> Tensor:
    """The tokens of a whole row, from (..., tokens, head size)."""
    own = states[..., part, :]
    return torch.cat((states[..., :before, :], own), -2) if before else own


class _ShortRows(torch.autograd.Function):
    """``softmax(scale * q k' + mask) v`` for each part, and its gradients for q, k and v."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, layout: Layout) -> Tensor:
        heads, tokens, size = query.shape[1:]
        shared_by = heads // key.shape[1]
        # Heads that share a key stand together, so that a product is made for all of them at once.
        scaled = (query[0] * scale).view(-1, shared_by, tokens, size)
        keys, values = key[0].contiguous(), value[0].contiguous()
        result = value.new_empty(tokens, heads, value.shape[-1])
        saved: list[Tensor] = []
        with torch.autocast(query.device.type, enabled=False):
            for part, before in layout.parts():
                asking = scaled[:, :, part].flatten(1, 2)
                row_keys, row_values = _with_shared(keys, part, before), _with_shared(values, part, before)
                length = part.stop - part.start
                scores = torch.bmm(asking, row_keys.transpose(1, 2))
                scores.view(-1, shared_by, length, before + length).add_(layout.mask(length, before, scores.dtype))
                weights = torch.softmax(scores, -1)
                _put(result[part], torch.bmm(weights, row_values), shared_by)
                saved += asking, row_keys, row_values, weights
        ctx.save_for_backward(*saved)
        ctx.scale, ctx.layout, ctx.shapes = scale, layout, (query.shape, key.shape, value.shape)
        return result[None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (_, heads, tokens, size), key_shape, value_shape = ctx.shapes
        shared_by = heads // key_shape[1]
        saved = ctx.saved_tensors
        by_token = gradient[0]
        for_query = gradient.new_empty(tokens, heads, size)
        for_key, for_value = gradient.new_zeros(key_shape[1:]), gradient.new_zeros(value_shape[1:])
        for number, (part, before) in enumerate(ctx.layout.parts()):
            asking, row_keys, row_values, weights = saved[4 * number : 4 * number + 4]
            given = _by_head(by_token[part], shared_by)
            _add(for_value, torch.bmm(weights.transpose(1, 2), given), part, before)
            for_weights = torch.bmm(given, row_values.transpose(1, 2))
            for_scores = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)  # noqa: SLF001  # the derivative has no public name
            _put(for_query[part], torch.bmm(for_scores, row_keys), shared_by)
            _add(for_key, torch.bmm(for_scores.transpose(1, 2), asking), part, before)
        return for_query.mul_(ctx.scale).transpose(0, 1)[None], for_key[None], for_value[None], None, None


def _put(into: Tensor, states: Tensor, shared_by: int) -> None:
    """Write (key heads, shared_by * length, size) into (length, heads, size)."""
    key_heads, _, size = states.shape
    by_token = states.view(key_heads, shared_by, -1, size).permute(2, 0, 1, 3)
    into.view(by_token.shape).copy_(by_token)


def _by_head(states: Tensor, shared_by: int) -> Tensor:
    """The way back from ``_put``."""
    length, heads, size = states.shape
    return (
        states.view(length, heads // shared_by, shared_by, size)
        .permute(1, 2, 0, 3)
        .reshape(-1, shared_by * length, size)
    )


def _add(total: Tensor, of_row: Tensor, part: slice, before: int) -> None:
    """Give the tokens of a row their gradient; the shared ones gather it from all rows. Both: (key heads, tokens, size)."""
    if before:
        total[:, :before] += of_row[:, :before]
    total[:, part] += of_row[:, before:]
