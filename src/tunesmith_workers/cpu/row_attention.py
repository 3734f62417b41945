"""Row attention: causal attention within the rows of a packed batch, which may share a prefix.

The path for short rows computes the scores of a row at once, for all heads that share a key, without repeating keys and
without any copy in float32: on a CPU this takes a fraction of the time of what is made for long rows. Long rows are left
to torch's own attention, which never holds all scores.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "tunesmith_rows"

SHORT = 512
"""Tokens. Rows of up to so many are short: beyond it the scores, which are kept for the way back, take too much memory."""

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
        self._masks: dict[tuple[int, torch.dtype], Tensor] = {}
        self._grids: list[_Grid] = []

    @property
    def longest(self) -> int:
        return self.shared + max(self.own)

    def mask(self, length: int, before: int, dtype: torch.dtype) -> Tensor:
        """What is added to the scores of ``length`` tokens after ``before`` others: (length, before + length)."""
        if (before, dtype) not in self._masks:
            size = max(self.shared, *self.own)
            self._masks[before, dtype] = torch.full((size, before + size), float("-inf"), dtype=dtype).triu(before + 1)
        return self._masks[before, dtype][:length, : before + length]

    def grids(self) -> list[_Grid]:
        """What attends together: the shared tokens, which come before all others, and the rows."""
        if not self._grids:
            shared = [_Grid((self.shared,), 0)] if self.shared else []
            self._grids = [*shared, _Grid(self.own, self.shared)]
        return self._grids


class _Grid:
    """Rows as if they were equally long: (rows, length), each after ``shared`` tokens that are not in the grid."""

    def __init__(self, lengths: tuple[int, ...], shared: int) -> None:
        self.rows, self.length, self.shared = len(lengths), max(lengths), shared
        self._part = slice(shared, shared + sum(lengths))
        own = torch.tensor(lengths)[:, None]
        within = torch.arange(self.length)[None]
        starts = shared + own.cumsum(0) - own
        tokens = torch.where(within < own, starts + within, starts)
        equal = bool((own == self.length).all())
        self._real = None if equal else (within < own).flatten().nonzero().squeeze(1)
        """Which places of the grid are tokens; the others stand in for padding, after all that is asked for."""
        before = torch.arange(shared).expand(self.rows, -1)
        self._row_tokens = torch.cat((before, tokens), 1).flatten()

    def by_row(self, states: Tensor) -> Tensor:
        """(key heads, tokens, size) as (key heads * rows, shared + length, size)."""
        return states.index_select(1, self._row_tokens).view(-1, self.shared + self.length, states.shape[-1])

    def by_head(self, states: Tensor, key_heads: int) -> Tensor:
        """Own tokens of (tokens, heads, size) as (key heads * rows, heads of a key * length, size); padding is zero."""
        own, (heads, size) = states[self._part], states.shape[1:]
        if self._real is not None:
            own = own.new_zeros(self.rows * self.length, heads, size).index_copy_(0, self._real, own)
        split = own.reshape(self.rows, self.length, key_heads, -1, size).permute(2, 0, 3, 1, 4)
        return split.reshape(key_heads * self.rows, -1, size)

    def put_by_token(self, states: Tensor, into: Tensor, key_heads: int) -> None:
        """The way back from ``by_head``."""
        own = into[self._part]
        split = states.view(key_heads, self.rows, -1, self.length, states.shape[-1]).permute(1, 3, 0, 2, 4)
        if self._real is None:
            own.view(split.shape).copy_(split)
        else:
            torch.index_select(split.reshape(-1, *own.shape[1:]), 0, self._real, out=own)

    def put_by_row(self, states: Tensor, into: Tensor) -> None:
        """The way back from ``by_row``: shared tokens gather from all rows what is added to them."""
        key_heads, _, size = into.shape
        rows = states.view(key_heads, self.rows, -1, size)
        into[:, : self.shared] += rows[:, :, : self.shared].sum(1)
        own = rows[:, :, self.shared :].reshape(key_heads, -1, size)
        into[:, self._part] = own if self._real is None else own.index_select(1, self._real)


def row_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within rows, each token to those before it: an attention as transformers calls it.

    ``query`` is (1, heads, tokens, head size), ``key`` and ``value`` have as many heads as the model has of keys, and
    ``layout`` says where rows begin and end. Returned are (1, tokens, heads, head size of the values), and no weights.

    Raises:
        ValueError: the model asks for something else, such as a window, caps, sinks or a mask of its own.
    """
    given = {name for name, value in others.items() if value is not None and value is not False}
    asked = sorted(given - _HARMLESS)
    if attention_mask is not None:
        # transformers makes none for this attention, so the model has one of its own: positions, or a choice of tokens.
        asked.append("attention_mask")
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
    # Splitting, not slicing: the gradient of a slice is as long as the whole sequence.
    sizes = [layout.shared, *layout.own] if layout.shared else list(layout.own)
    parts = list(zip(*(torch.split(x, sizes, 2) for x in (query, key, value)), strict=True))
    rows = []
    for number, (asking, keys, values) in enumerate(parts):
        if number == 0 or not layout.shared:
            rows.append(scaled_dot_product_attention(asking, keys, values, is_causal=True, scale=scale))
            continue
        _, shared_keys, shared_values = parts[0]
        of_row = torch.cat((shared_keys, keys), 2), torch.cat((shared_values, values), 2)
        mask = layout.mask(asking.shape[2], layout.shared, asking.dtype)
        rows.append(scaled_dot_product_attention(asking, *of_row, mask, scale=scale))
    return torch.cat(rows, 2).transpose(1, 2)


class _ShortRows(torch.autograd.Function):
    """``softmax(scale * q k' + mask) v`` for the shared tokens and for each row, and its gradients for q, k and v.

    Heads that share a key stand together, so that a product is made for all of them at once.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, layout: Layout) -> Tensor:
        ctx.grids = grids = layout.grids()
        by_token = query[0].transpose(0, 1) * scale
        keys, values, key_heads = key[0], value[0], key.shape[1]
        result = value.new_empty(len(by_token), query.shape[1], value.shape[-1])
        saved: list[Tensor] = []
        with torch.autocast(query.device.type, enabled=False):
            for grid in grids:
                asking, row_keys, row_values = grid.by_head(by_token, key_heads), grid.by_row(keys), grid.by_row(values)
                scores = torch.bmm(asking, row_keys.transpose(1, 2))
                mask = layout.mask(grid.length, grid.shared, scores.dtype)
                scores.view(len(scores), -1, *mask.shape).add_(mask)
                weights = torch.softmax(scores, -1)
                grid.put_by_token(torch.bmm(weights, row_values), result, key_heads)
                saved += asking, row_keys, row_values, weights
        ctx.save_for_backward(*saved)
        ctx.scale, ctx.shapes = scale, (query.shape, key.shape, value.shape)
        return result[None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_shape, key_shape, value_shape = ctx.shapes
        key_heads, by_token = key_shape[1], gradient[0]
        for_query = gradient.new_empty(query_shape[2], query_shape[1], query_shape[3])
        for_key, for_value = gradient.new_zeros(key_shape[1:]), gradient.new_zeros(value_shape[1:])
        saved = ctx.saved_tensors  # to be asked for once: checkpointed activations are computed anew each time
        for number, grid in enumerate(ctx.grids):
            asking, row_keys, row_values, weights = saved[4 * number : 4 * number + 4]
            given = grid.by_head(by_token, key_heads)
            grid.put_by_row(torch.bmm(weights.transpose(1, 2), given), for_value)
            for_weights = torch.bmm(given, row_values.transpose(1, 2))
            for_scores = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)  # noqa: SLF001  # the derivative has no public name
            grid.put_by_token(torch.bmm(for_scores, row_keys), for_query, key_heads)
            grid.put_by_row(torch.bmm(for_scores.transpose(1, 2), asking), for_key)
        return for_query.mul_(ctx.scale).transpose(0, 1)[None], for_key[None], for_value[None], None, None
