"""From logits to tokens: penalties, temperature, top-k, top-p and seeds, for all sequences of a step together.

Penalties are those of OpenAI's API: of what has been answered so far, not of the prompt. Log probabilities are told of the
model's own distribution, before any of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import torch
from torch import Tensor

_FEW = 512
"""Top-p first looks at so many of the most likely tokens: sorting a whole vocabulary takes longer than a small model."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the tokens of a sequence are chosen."""

    temperature: float = 1.0
    """0: always the most likely one."""
    top_p: float = 1.0
    top_k: int = 0
    """0: of all."""
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = {}
    top_logprobs: int | None = None
    """How many log probabilities are told for each token, besides its own; None: not even that."""

    @property
    def is_plain(self) -> bool:
        """Whether the logits are taken as they are."""
        return not (self.frequency_penalty or self.presence_penalty or self.logit_bias)


class Drawn(msgspec.Struct, frozen=True):
    """A token, and how likely it was where that was asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Chooser:
    """What a sequence needs for its choices: how, what it has said, and its own random numbers."""

    def __init__(self, sampling: Sampling, number: int = 0) -> None:
        """``number`` is which of the answers to one prompt it is: each draws its own random numbers from one seed."""
        self.sampling = sampling
        self.said: Counter[int] = Counter()
        self.allowed: Tensor | None = None
        """(vocabulary,) of bool: what may come next; None: anything."""
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed((sampling.seed + 0x9E3779B97F4A7C15 * number) % 2**63)

    def draw(self) -> float:
        """A random number in [0, 1)."""
        return float(torch.rand((), generator=self._random, dtype=torch.float64))


def choose(logits: Tensor, choosers: Sequence[Chooser]) -> list[Drawn]:
    """One token for each row of the logits, (sequences, vocabulary)."""
    adapted = _adapted(logits, choosers)
    drawing = [number for number, chooser in enumerate(choosers) if chooser.sampling.temperature > 0]
    tokens: list[int] = adapted.argmax(-1).tolist() if len(drawing) < len(choosers) else [0] * len(choosers)
    if drawing:
        rows = adapted if len(drawing) == len(choosers) else adapted[drawing]
        for number, token in zip(drawing, _sampled(rows, [choosers[number] for number in drawing]), strict=True):
            tokens[number] = token
    for chooser, token in zip(choosers, tokens, strict=True):
        if not chooser.sampling.is_plain:
            chooser.said[token] += 1
    return _told(logits, choosers, tokens)


def _adapted(logits: Tensor, choosers: Sequence[Chooser]) -> Tensor:
    if all(chooser.sampling.is_plain and chooser.allowed is None for chooser in choosers):
        return logits
    adapted = logits.float().clone()
    for row, chooser in zip(adapted, choosers, strict=True):
        sampling = chooser.sampling
        if chooser.said:
            said = torch.tensor(list(chooser.said), device=row.device)
            often = torch.tensor(list(chooser.said.values()), dtype=row.dtype, device=row.device)
            row[said] -= sampling.frequency_penalty * often + sampling.presence_penalty
        if sampling.logit_bias:
            biased = torch.tensor(list(sampling.logit_bias), device=row.device)
            row[biased] += torch.tensor(list(sampling.logit_bias.values()), dtype=row.dtype, device=row.device)
        if chooser.allowed is not None:
            row.masked_fill_(~chooser.allowed, float("-inf"))
    return adapted


def _sampled(logits: Tensor, choosers: Sequence[Chooser]) -> list[int]:
    """One token for each row, drawn with its own random number by the inverse of the cumulative distribution."""
    chosen = [chooser.sampling for chooser in choosers]
    heat = torch.tensor([sampling.temperature for sampling in chosen], device=logits.device)
    scaled = logits.float() / heat.clamp_min(1e-5)[:, None]
    draws = torch.tensor([[chooser.draw()] for chooser in choosers], dtype=torch.float64, device=logits.device)
    if all(sampling.top_p >= 1 and not sampling.top_k for sampling in chosen):
        tokens = _drawn(torch.softmax(scaled, -1), draws)
        return [int(token) for token in tokens.tolist()]
    probabilities = torch.softmax(scaled, -1)
    most, tokens = _likeliest(probabilities, chosen)
    most = _cut(most, chosen)
    places = _drawn(most, draws)
    return [int(token) for token in tokens.gather(1, places[:, None])[:, 0].tolist()]


def _likeliest(probabilities: Tensor, chosen: Sequence[Sampling]) -> tuple[Tensor, Tensor]:
    """The most likely first, as many as any of the rows needs."""
    size = probabilities.shape[-1]
    few = min(_FEW, size)
    most, tokens = probabilities.topk(few, -1)
    reach = most.sum(-1).tolist()
    enough = (
        (sampling.top_p < 1 and sampling.top_p <= covered) or 0 < sampling.top_k <= few
        for sampling, covered in zip(chosen, reach, strict=True)
    )
    if few == size or all(enough):
        return most, tokens
    return probabilities.sort(-1, descending=True)


def _cut(most: Tensor, chosen: Sequence[Sampling]) -> Tensor:
    """What is beyond top-k, or beyond the tokens that make up top-p, has no chance; the first always has one."""
    size = most.shape[-1]
    ranks = torch.arange(size, device=most.device)
    limit = torch.tensor([sampling.top_k or size for sampling in chosen], device=most.device)
    kept = most.masked_fill(ranks >= limit[:, None], 0.0)
    share = torch.tensor([sampling.top_p if sampling.top_p < 1 else 2.0 for sampling in chosen], device=most.device)
    before = kept.cumsum(-1) - kept
    beyond = (before >= share[:, None] * kept.sum(-1, keepdim=True)) & (ranks > 0)
    return kept.masked_fill_(beyond, 0.0)


def _drawn(weights: Tensor, draws: Tensor) -> Tensor:
    """The place in each row where its cumulative weight passes the draw, (rows,)."""
    reached = weights.double().cumsum(-1)
    places = torch.searchsorted(reached, draws * reached[:, -1:], right=True)[:, 0]
    last = (weights > 0).long().mul_(torch.arange(weights.shape[-1], device=weights.device)).amax(-1)
    return torch.minimum(places, last)  # rounding must not choose what has no chance


def _told(logits: Tensor, choosers: Sequence[Chooser], tokens: Sequence[int]) -> list[Drawn]:
    asked = [number for number, chooser in enumerate(choosers) if chooser.sampling.top_logprobs is not None]
    drawn = [Drawn(token) for token in tokens]
    for number in asked:
        logprobs = torch.log_softmax(logits[number].float(), -1)
        wanted = choosers[number].sampling.top_logprobs or 0
        values, ids = logprobs.topk(min(wanted, len(logprobs)))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        drawn[number] = Drawn(tokens[number], float(logprobs[tokens[number]]), top)
    return drawn
