"""Finding out on two short rows whether the logits at trained positions are all there is to a model's loss.

Everything is compared in float32 (``exact``), where two ways to the same numbers agree to some millionths: whatever
differs by more differs in what it computes. Faster ways of an ``Acceleration`` are verified on the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith_workers.examples.batches import Batch, rows_of, targets_of
from tunesmith_workers.examples.rendering import IGNORED
from tunesmith_workers.models.structure import drops
from tunesmith_workers.objectives.cross_entropy import summed_cross_entropy
from tunesmith_workers.objectives.trained_logits import TrainedLogits
from tunesmith_workers.training.acceleration import Acceleration
from tunesmith_workers.training.exact import difference, exactly, few_threads, in_training, misfit, near

_SAME_LOSS = 1e-5
"""Relatively: of one mean over the same logits, computed twice. A router's loss with the smallest coefficients that are
in use adds about ten times as much."""
SAME_LOGITS = 2e-4
"""Of their norm: float32 over some dozens of layers, summed in another order, leaves some hundred-thousandths."""
_SAME_PRECISION = 0.05
"""Of the loss: what bfloat16 may round away. Its numbers are compared in float32; here they only have to make sense."""

LENGTHS = (32, 21)
_MOST_COMPARED = 1 << 22
"""Numbers of a gradient that are compared, of small parameters first: norms, biases and adapters of all layers."""


def verify(logits: TrainedLogits, model: nn.Module, batch: Batch, acceleration: Acceleration) -> str | None:
    """Have ``model`` run in the fastest way that is right. Of ``batch``, only the tokens are used.

    Returns:
        Why the model's own loss is to be used; None when token cross entropy is all there is to it.
    """
    check = Check(logits, model, batch)
    with in_training(model), few_threads(model):
        acceleration.verify_attention(model, check.rows)
        reason = misfit(check.compare_gathered) if logits.gathers else "the model has no output layer that can be found"
        if reason is None and not acceleration.verify(check):
            reason = check.fails_in_its_precision()
    logits.gathers = reason is None
    return reason


class Check:
    """A model, and two short rows to try it on."""

    def __init__(self, logits: TrainedLogits, model: nn.Module, batch: Batch) -> None:
        self.logits = logits
        self.model = model
        self.rows = short_rows(batch)
        self.draws = "dropout is used, and rows would share its random numbers" if drops(model) else None
        """Why random numbers are drawn in training; None when none are."""
        self.exact: Tensor | None = None
        """Logits at the trained positions in float32, (trained, vocabulary), once ``compare_gathered`` has run."""
        self._began, self._threads = time.monotonic(), torch.get_num_threads()

    @property
    def seconds_per_token(self) -> float:
        """In one thread; more than once forward and back takes."""
        return (time.monotonic() - self._began) * self._threads / sum(LENGTHS)

    def compare_gathered(self) -> str | None:
        """Why the logits at trained positions are not what the model's own loss is made of."""
        with torch.no_grad(), exactly(self.model) as drew:
            outputs = self.logits.own_outputs(self.model, self.rows)
        if drew():
            self.draws = self.draws or "it draws random numbers in training, and rows would share them"
        if reason := self._beyond_cross_entropy(outputs):
            return reason
        self.exact = self.exact_logits(self.rows)
        at_trained = torch.cat([row[:length] for row, length in zip(outputs.logits, LENGTHS, strict=True)])
        apart = difference(self.exact, at_trained[targets_of(self.rows) != IGNORED])
        return None if apart <= SAME_LOGITS else f"logits at the trained positions differ by {apart:.1e}"

    @torch.no_grad()
    def exact_logits(self, rows: Batch) -> Tensor:
        with exactly(self.model):
            return self.logits(self.model, rows)[0]

    def exact_gradient(self) -> tuple[Tensor, Tensor]:
        """Logits, and the gradient of the loss for some trained parameters as one row of numbers."""
        parameters = self._compared()
        with exactly(self.model):
            logits, wanted = self.logits(self.model, self.rows)
            found = torch.autograd.grad(summed_cross_entropy(logits, wanted), parameters, allow_unused=True)
        numbers = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        return logits.detach(), torch.cat([number.float().flatten() for number in numbers])

    def fails_in_its_precision(self) -> str | None:
        """Forward and backward once as in training, in whatever precision the caller has set up, unless that is float32."""
        if self.exact is None:
            return None
        autocast = torch.is_autocast_enabled(self.exact.device.type)
        if not autocast and all(parameter.dtype == torch.float32 for parameter in self.model.parameters()):
            return None
        expected = float(summed_cross_entropy(self.exact, self._wanted()))

        def run() -> str | None:
            logits, wanted = self.logits(self.model, self.rows)
            total = summed_cross_entropy(logits, wanted)
            torch.autograd.grad(total, self._compared(), allow_unused=True)
            found = float(total.detach())
            fits = near(found, expected, _SAME_PRECISION)
            return None if fits else f"the loss is {found:.4f} in place of {expected:.4f}"

        return misfit(run)

    def _beyond_cross_entropy(self, outputs: Any) -> str | None:
        config: Any = self.model.config
        if getattr(outputs, "aux_loss", None) is not None and getattr(config, "router_aux_loss_coef", None):
            return "it adds a loss of its own for routing"
        labels = rows_of(self.rows, "labels")
        own, expected = float(outputs.loss), _mean_cross_entropy(outputs.logits, [row[1:] for row in labels])
        if near(own, expected, _SAME_LOSS):
            return None
        if near(own, _mean_cross_entropy(outputs.logits, labels), _SAME_LOSS):
            return None  # decoders of translation models: whoever calls them is meant to shift the labels
        return f"it is {own:.6f}, and the cross entropy of its logits {expected:.6f}"

    def _wanted(self) -> Tensor:
        targets = targets_of(self.rows)
        return targets[targets != IGNORED]

    def _compared(self) -> list[nn.Parameter]:
        parameters = sorted((p for p in self.model.parameters() if p.requires_grad), key=torch.numel)
        sizes = torch.tensor([p.numel() for p in parameters]).cumsum(0)
        return parameters[: max(1, int((sizes <= _MOST_COMPARED).sum()))]


def short_rows(batch: Batch) -> dict[str, Any]:
    """Two short rows of different lengths, made of a batch's first and last row; some tokens are not trained."""
    rows = rows_of(batch)
    ids = torch.cat([_repeated(row, length) for row, length in zip((rows[0], rows[-1]), LENGTHS, strict=True)])
    columns = torch.cat([torch.arange(length, device=ids.device) for length in LENGTHS])
    trained = (columns > LENGTHS[1] // 3) & (columns % 5 != 0)
    return {"input_ids": ids, "labels": ids.where(trained, IGNORED), "lengths": LENGTHS}


def _repeated(row: Tensor, length: int) -> Tensor:
    return row.repeat(-(-length // len(row)))[:length]


def _mean_cross_entropy(logits: Tensor, targets: Sequence[Tensor]) -> float:
    """Of rows of logits, (rows, length, vocabulary), at those of their first positions that have a target."""
    at = torch.cat([row[: len(wanted)] for row, wanted in zip(logits, targets, strict=True)]).float()
    wanted = torch.cat(list(targets))
    there = wanted != IGNORED
    return float(summed_cross_entropy(at[there], wanted[there])) / max(int(there.sum()), 1)
