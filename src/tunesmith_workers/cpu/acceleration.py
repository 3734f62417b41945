"""The ``Acceleration`` of a CPU: eager attention for short rows, fused and prepacked frozen weights, packed batches, and
parts of a batch in forked workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from tunesmith_workers.cpu.batch_parts import BatchParts
from tunesmith_workers.cpu.forked_workers import Patience, forked_workers_for
from tunesmith_workers.cpu.fused_norm import fuse_norms
from tunesmith_workers.cpu.prepacked import prepack_weights
from tunesmith_workers.cpu.verify import Packing, attention_misfit, parts_misfit
from tunesmith_workers.examples.batches import Batch, take
from tunesmith_workers.models.memory_use import free_memory_now
from tunesmith_workers.models.precision import Precision
from tunesmith_workers.models.structure import set_attention
from tunesmith_workers.process.events import emit_message, log
from tunesmith_workers.training.acceleration import Compute, StepLoss
from tunesmith_workers.training.verify import Check

_EAGER_IS_FASTER_BELOW = 192
"""Tokens. Measured on CPUs with bfloat16: torch's fused attention works in blocks that shorter rows do not fill."""


_OWN_LOSS = "the model is trained by its own loss"


class Slower(msgspec.Struct, frozen=True, kw_only=True):
    """Why a model is run slower than it could be; None where it is not."""

    attention: str | None = None
    """Why it attends in another way than it was loaded with."""
    padded: str | None = None
    """Why batches are padded. None, too, when nobody asked for packed ones."""
    whole: str | None = None
    """Why parts of a batch must not be computed on their own."""


class CpuAcceleration:
    """An ``Acceleration``. ``chooses_attention`` is whether the attention is left to it."""

    fuses_adapters = True

    def __init__(
        self, *, rows: int, chooses_attention: bool, forks: bool, stop_asked: Callable[[], bool] = lambda: False
    ) -> None:
        self.parts = 1
        self.slower = Slower()
        self._rows = rows
        self._chooses_attention = chooses_attention
        self._forks = forks
        self._stop_asked = stop_asked
        self._packing = Packing()
        self._workers: BatchParts | None = None
        self._seconds_per_token = 0.0

    def attention(self, longest: int, precision: Precision) -> str | None:
        """For some models, eager attention computes something else: ``verify_attention`` compares the two."""
        in_bfloat16 = precision.autocast or precision.weights == torch.bfloat16
        return "eager" if self._chooses_attention and in_bfloat16 and longest < _EAGER_IS_FASTER_BELOW else None

    def prepare(self, model: nn.Module) -> None:
        if any(parameter.requires_grad is False for parameter in model.parameters()):
            norms, prepacked = fuse_norms(model), prepack_weights(model, free_memory_now() or 0)
            log(f"frozen weights: {norms} fused RMSNorms, {'prepacked' if prepacked else 'not prepacked'}")
        if self._forks:
            self.parts = forked_workers_for(model, self._rows) or 1

    def verify_attention(self, model: nn.Module, rows: Batch) -> None:
        reason = attention_misfit(model, rows) if self._chooses_attention else None
        if reason is not None:
            self.slower = Slower(attention=reason)
            set_attention(model, "sdpa")
            emit_message(f"sdpa attention is used: {reason}")

    def verify(self, check: Check) -> bool:
        whole, padded = parts_misfit(check), None
        if self._chooses_attention:
            padded = whole or self._packing.misfit(check)
            emit_message(f"padded batches: {padded}" if padded else "packed batches; shared prefix computed once")
        self._report(padded=padded, whole=whole)
        self._seconds_per_token = check.seconds_per_token
        return self._packing.is_used

    def use_own_loss(self, model: nn.Module, logits: Any) -> None:
        self._packing.stop(model, logits)
        self._report(padded=_OWN_LOSS if self._chooses_attention else None, whole=_OWN_LOSS)

    def _report(self, *, padded: str | None, whole: str | None) -> None:
        self.slower = msgspec.structs.replace(self.slower, padded=padded, whole=whole)
        if self.parts > 1 and whole is not None:
            self.parts = 1
            emit_message(f"batches are computed in one process: {whole}")

    def gradients(
        self, model: nn.Module, compute: Compute, batch: Batch, items: int, *, measures: bool
    ) -> list[StepLoss] | None:
        workers = self._forked(model, compute)
        if workers is None:
            return None
        count = min(workers.count, len(batch["lengths"]))
        # Rows come sorted by length, so each part takes every count-th.
        parts = [take(batch, slice(number, None, count)) for number in range(count)]
        found = workers.add_gradients(
            [(part, items, measures) for part in parts], [len(part["input_ids"]) for part in parts]
        )
        return [
            StepLoss(torch.tensor(loss), {name: torch.tensor(value) for name, value in measured.items()})
            for loss, measured in found
        ]

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _forked(self, model: nn.Module, compute: Compute) -> BatchParts | None:
        """Workers are forked when they are first needed, if there are to be any: they see what there is at that moment."""
        if self._workers is None and self.parts > 1:
            model.train()
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

            def work(request: tuple[Batch, int, bool]) -> tuple[Any, Sequence[Tensor | None]]:
                found = compute(*request)
                measured = {name: value.item() for name, value in found.measured.items()}
                gradients = torch.autograd.grad(found.loss, parameters, allow_unused=True)
                return (float(found.loss.detach()), measured), gradients

            try:
                self._workers = BatchParts(
                    self.parts,
                    work,
                    parameters,
                    patience=Patience(self._seconds_per_token),
                    stop_asked=self._stop_asked,
                )
            except OSError as error:
                emit_message(
                    f"batches are computed in one process, as no other could be started: {error}", level="warning"
                )
                self.parts = 1
        return self._workers
