"""A batch as one sequence without padding, in which the beginning that all its rows share stands once.

Rows of one task mostly open with the same system prompt. What a causal model makes of it does not depend on what comes
after, so it need not be computed for every row; and the gradients that all rows send back to it add up by themselves.
Likewise nothing depends on what comes after the last token that a prediction is made from, and it is left out.
Attention is the only place where tokens of a row meet, and ``row_attention`` is told where rows begin and end. Loss and
gradients are those of the padded batch. The idea is known as prefix sharing (Prefix Grouper, arXiv:2506.05433).

Only models that are seen to fit are run in this way; ``obstacle`` says why another is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith_workers.row_attention import NAME, SHORT, Layout

_WORTH_SHARING = 0.25
"""Of long rows, the part that must be shared: torch's own attention skips the future only where nothing stands before."""


class SideBySide:
    """The rows of a padded batch in one sequence, as far as they are needed.

    ``predicting``, (rows, length), says from which positions of the padded batch predictions are made. ``tokens`` and
    ``positions`` are (1, all tokens); ``places`` is (rows, length) and says where each of those positions is now. Places
    of others mean nothing.
    """

    def __init__(self, batch: Mapping[str, Tensor], predicting: Tensor) -> None:
        ids = batch["input_ids"]
        # From a row on which nothing is predicted, the first token is kept: each part has at least one.
        present = predicting.flip(1).cumsum(1).flip(1).bool()
        present[:, 0] = True
        lengths = present.sum(1)
        shared = _shared(ids, int(lengths.min()))
        if lengths.max() > SHORT and shared < _WORTH_SHARING * int(lengths.max()):
            shared = 0
        kept = present.clone()
        kept[1:, :shared] = False
        self.tokens = ids[kept][None]
        self.positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)[kept][None]
        self.places = (kept.flatten().cumsum(0) - 1).view_as(ids)
        self.places[1:, :shared] = self.places[0, :shared]
        self.layout = Layout(shared, tuple((lengths - shared).tolist()))

    def arguments(self) -> dict[str, Any]:
        """What a model is called with."""
        return {"input_ids": self.tokens, "position_ids": self.positions, "layout": self.layout}


def _shared(ids: Tensor, shortest: int) -> int:
    """How many tokens all rows begin with; each keeps one of its own."""
    if len(ids) == 1:
        return 0
    same = (ids[:, : shortest - 1] == ids[0, : shortest - 1]).all(0)
    return int(same.long().cumprod(0).sum())


def obstacle(model: nn.Module) -> str | None:
    """Why the rows of a batch cannot be laid side by side for this model, as far as can be seen without running it."""
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention cannot be chosen"
    if any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules()):  # noqa: SLF001  # has no public name
        return "it mixes neighbouring tokens by convolution"
    if any(kind != "full_attention" for kind in getattr(_text_config(model), "layer_types", None) or ()):
        return "not every layer attends to the whole row"
    return None


def drops(model: nn.Module) -> bool:
    """Whether any part of the model says that it changes values at random while training.

    Parts that drop by a function keep how much in an attribute of their own. What draws random numbers without saying so
    is seen when the model is run (``verify``).
    """
    return any(_is_random(name, value) for module in model.modules() for name, value in _settings(module))


def _settings(module: nn.Module) -> Iterator[tuple[str, Any]]:
    if isinstance(module, nn.modules.dropout._DropoutNd):  # noqa: SLF001  # has no public name
        yield "dropout", module.p
    yield from vars(module).items()


def _is_random(name: str, value: Any) -> bool:
    named = any(part in name for part in ("drop", "jitter"))
    return named and isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def layers_of(model: nn.Module) -> int | None:
    """How many layers there are, each of which should attend once."""
    return getattr(_text_config(model), "num_hidden_layers", None)


def choose(model: nn.Module, attention: str = NAME) -> str:
    """Have the model attend in this way from now on, and return the way before."""
    config: Any = model.config
    before: str = config._attn_implementation  # noqa: SLF001  # set_attn_implementation refuses what can be changed back only here
    config._attn_implementation = attention  # noqa: SLF001  # likewise
    return before


def _text_config(model: nn.Module) -> Any:
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config
