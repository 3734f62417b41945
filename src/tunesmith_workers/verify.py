"""Finding out on two short rows how a model may be run: which of our faster ways give the loss and gradients of its own.

Everything is compared in float32 (``float32``), where two ways to the same numbers agree to some millionths: whatever
differs by more differs in what it computes. That costs a few forward passes over the two rows, and two backward ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from transformers import set_seed

from tunesmith_workers.cross_entropy import summed_cross_entropy
from tunesmith_workers.float32 import in_float32
from tunesmith_workers.loss import TrainedTokenLoss, targets_of
from tunesmith_workers.padding_free import choose, drops, obstacle
from tunesmith_workers.randomness import Randomness
from tunesmith_workers.rendering import IGNORED

Rows = Mapping[str, Tensor]

_SAME_LOSS = 1e-5
"""Relatively: of one mean over the same logits, computed twice. A router's loss with the smallest coefficients that are
in use adds about ten times as much."""
_SAME_LOGITS = 2e-4
"""Of their norm: float32 over some dozens of layers, summed in another order, leaves some hundred-thousandths."""
_SAME_GRADIENT = 1e-3
"""Of its norm, which has come through twice as many layers."""
_SAME_PRECISION = 0.05
"""Of the loss: what bfloat16 may round away. Its numbers are compared in float32; here they only have to make sense."""

_LENGTHS = (32, 21)
_MOST_COMPARED = 1 << 22
"""Numbers of a gradient that are compared, of small parameters first: norms, biases and adapters of all layers."""

_PARAMETERS_FOR_A_THREAD = 1 << 28

_OWN_LOSS = "the model is trained by its own loss"

_MISFITS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError)
"""What a way ends in that a model is not made for."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """How the model is run from now on, with reasons for whatever is slower than it could be."""

    attention: str | None = None
    """Why it attends in another way than it was loaded with."""
    own_loss: str | None = None
    """Why the model's own loss is used; None when token cross entropy is all there is to it."""
    padded: str | None = None
    """Why the rows of a batch are padded; None when they are packed, or when nobody asked for it."""
    whole: str | None = None
    """Why parts of a batch must not be computed on their own; None when that gives what the batch as a whole does."""


def verify(loss: TrainedTokenLoss, model: nn.Module, batch: Rows, *, fastest: bool) -> Verified:
    """Have ``loss`` and ``model`` run in the fastest way that is right. Of ``batch``, only the tokens are used.

    Without ``fastest``, the model attends as it was loaded, and rows are padded.
    """
    rows = short_rows(batch)
    with _training(model), _few_threads(model):
        attention = _verify_attention(model, rows) if fastest else None
        draws, own_loss, exact = _verify_gathering(loss, model, rows)
        if own_loss or exact is None:
            return Verified(
                attention=attention, own_loss=own_loss, padded=_OWN_LOSS if fastest else None, whole=_OWN_LOSS
            )
        whole = draws or _misfit(lambda: _depends_on_others(loss, model, rows, exact))
        padded = (whole or _verify_packing(loss, model, rows)) if fastest else None
        if loss.packs and (padded := _fails_in_its_precision(loss, model, rows, exact)):
            loss.pad(model)
        if not loss.packs and (own_loss := _fails_in_its_precision(loss, model, rows, exact)):
            loss.gathers, whole = False, _OWN_LOSS
    return Verified(attention=attention, own_loss=own_loss, padded=padded, whole=whole)


def short_rows(batch: Rows) -> dict[str, Tensor]:
    """Two short padded rows of different lengths, made of a batch's first and last row; some tokens are not trained."""
    ids, lengths = batch["input_ids"], batch["attention_mask"].sum(1).tolist()
    columns = torch.arange(_LENGTHS[0], device=ids.device)
    tokens = torch.stack([ids[number, columns % int(lengths[number])] for number in (0, -1)])
    mask = torch.stack([(columns < length).long() for length in _LENGTHS])
    trained = mask.bool() & (columns > _LENGTHS[1] // 3) & (columns % 5 != 0)
    return {"input_ids": tokens * mask, "attention_mask": mask, "labels": tokens.where(trained, IGNORED)}


def _verify_attention(model: Any, rows: Rows) -> str | None:
    """Eager attention is chosen for speed. transformers' default is right where a model's two attentions differ."""
    if model.config._attn_implementation != "eager" or not getattr(model, "_supports_sdpa", False):  # noqa: SLF001  # no public name
        return None
    found = []
    try:
        for attention in ("sdpa", "eager"):
            choose(model, attention)
            with torch.no_grad(), _exactly(model):
                found.append(model(**rows, use_cache=False).logits[targets_of(rows["labels"]) != IGNORED])
    finally:
        choose(model, "eager")
    difference = _difference(found[1], found[0])
    if difference <= _SAME_LOGITS:
        return None
    choose(model, "sdpa")
    return f"eager attention gives other logits than sdpa (by {difference:.1e})"


def _verify_gathering(
    loss: TrainedTokenLoss, model: nn.Module, rows: Rows
) -> tuple[str | None, str | None, Tensor | None]:
    """Why rows would share random numbers, why the model's own loss is to be used, and the exact logits otherwise."""
    draws = "dropout is used, and rows would share its random numbers" if drops(model) else None
    found = None

    def compare() -> str | None:
        nonlocal draws, found
        with torch.no_grad(), _exactly(model) as drew:
            outputs = model(**rows, use_cache=False)
        if drew():
            draws = draws or "it draws random numbers in training, and rows would share them"
        if reason := _beyond_cross_entropy(model, outputs, rows):
            return reason
        found = _exact_logits(loss, model, rows)
        difference = _difference(found, outputs.logits[targets_of(rows["labels"]) != IGNORED])
        return None if difference <= _SAME_LOGITS else f"logits at the trained positions differ by {difference:.1e}"

    reason = _misfit(compare) if loss.gathers else "the model has no output layer that can be found"
    loss.gathers = reason is None
    return draws, reason, found


def _beyond_cross_entropy(model: Any, outputs: Any, rows: Rows) -> str | None:
    labels = rows["labels"]
    if getattr(outputs, "aux_loss", None) is not None and getattr(model.config, "router_aux_loss_coef", None):
        return "it adds a loss of its own for routing"
    own, expected = float(outputs.loss), _mean_cross_entropy(outputs.logits, targets_of(labels))
    if _near(own, expected, _SAME_LOSS):
        return None
    if _near(own, _mean_cross_entropy(outputs.logits, labels), _SAME_LOSS):
        return None  # decoders of translation models: whoever calls them is meant to shift the labels
    return f"it is {own:.6f}, and the cross entropy of its logits {expected:.6f}"


def _depends_on_others(loss: TrainedTokenLoss, model: nn.Module, rows: Rows, together: Tensor) -> str | None:
    """What the model makes of the shorter row without the other one, and without padding."""
    found = _exact_logits(loss, model, {name: value[1:, : _LENGTHS[1]] for name, value in rows.items()})
    difference = _difference(found, together[-len(found) :])
    return None if difference <= _SAME_LOGITS else f"what it makes of a row depends on others (by {difference:.1e})"


def _verify_packing(loss: TrainedTokenLoss, model: nn.Module, rows: Rows) -> str | None:
    """Why rows are to be padded. If they are not, ``loss`` packs them from now on."""
    reason = obstacle(model)
    if reason is not None:
        return reason

    def compare() -> str | None:
        expected = _exact_gradient(loss, model, rows)
        loss.pack(model)
        return _compare_gradients(expected, _exact_gradient(loss, model, rows))

    reason = _misfit(compare)
    if reason is not None:
        loss.pad(model)
    return reason


@torch.no_grad()
def _exact_logits(loss: TrainedTokenLoss, model: nn.Module, rows: Rows) -> Tensor:
    with _exactly(model):
        return loss.logits(model, rows)[0]


def _exact_gradient(loss: TrainedTokenLoss, model: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of the loss for some trained parameters as one row of numbers."""
    parameters = _compared(model)
    with _exactly(model):
        logits, wanted = loss.logits(model, rows)
        found = torch.autograd.grad(summed_cross_entropy(logits, wanted), parameters, allow_unused=True)
    numbers = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return logits.detach(), torch.cat([number.float().flatten() for number in numbers])


def _compared(model: nn.Module) -> list[nn.Parameter]:
    parameters = sorted((p for p in model.parameters() if p.requires_grad), key=torch.numel)
    sizes = torch.tensor([p.numel() for p in parameters]).cumsum(0)
    return parameters[: max(1, int((sizes <= _MOST_COMPARED).sum()))]


def _compare_gradients(expected: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> str | None:
    (logits, gradient), (packed_logits, packed_gradient) = expected, found
    difference = _difference(packed_logits, logits)
    if difference > _SAME_LOGITS:
        return f"logits of packed rows differ by {difference:.1e}"
    difference = _difference(packed_gradient, gradient)
    return None if difference <= _SAME_GRADIENT else f"gradients of packed rows differ by {difference:.1e}"


def _fails_in_its_precision(loss: TrainedTokenLoss, model: nn.Module, rows: Rows, exact: Tensor) -> str | None:
    """Forward and backward once as in training, in whatever precision the caller has set up, unless that is float32."""
    autocast = torch.is_autocast_enabled(exact.device.type)
    if not autocast and all(parameter.dtype == torch.float32 for parameter in model.parameters()):
        return None
    targets = targets_of(rows["labels"])
    expected = float(summed_cross_entropy(exact, targets[targets != IGNORED]))

    def run() -> str | None:
        total = loss(model, rows).total
        torch.autograd.grad(total, _compared(model), allow_unused=True)
        found = float(total.detach())
        return (
            None if _near(found, expected, _SAME_PRECISION) else f"the loss is {found:.4f} in place of {expected:.4f}"
        )

    return _misfit(run)


def _misfit(way: Callable[[], str | None]) -> str | None:
    """What it says, or what it ends in."""
    try:
        return way()
    except _MISFITS as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Have the model as it is in training, and leave no trace of what was tried."""
    before, begun_with = model.training, Randomness()
    model.train()
    try:
        yield
    finally:
        model.train(before)
        begun_with.restore()


@contextmanager
def _few_threads(model: nn.Module) -> Iterator[None]:
    """On rows this short, an operation is over before another thread has woken, and on a busy machine all wait for that one."""
    before = torch.get_num_threads()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    torch.set_num_threads(min(before, max(1, parameters // _PARAMETERS_FOR_A_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _exactly(model: nn.Module) -> Iterator[Callable[[], bool]]:
    """Float32, and the same random numbers every time; what is yielded says afterwards whether any were drawn."""
    set_seed(0)
    before = after = Randomness()
    with _own_forward(model), _float32_attention(model), in_float32(next(model.parameters()).device.type):
        yield lambda: after.differs_from(before)
    after = Randomness()


@contextmanager
def _own_forward(model: Any) -> Iterator[None]:
    """Accelerate puts a forward in the place of the model's that turns autocast on, whatever is around it."""
    replaced = vars(model).get("_original_forward")
    if replaced is None:
        yield
        return
    before, model.forward = model.forward, replaced
    try:
        yield
    finally:
        model.forward = before


@contextmanager
def _float32_attention(model: Any) -> Iterator[None]:
    """Flash attention takes sixteen bits only; in float32, an attention that computes the same stands in for it."""
    if not (model.config._attn_implementation or "").startswith("flash"):  # noqa: SLF001  # no public name
        yield
        return
    before = choose(model, "sdpa" if getattr(model, "_supports_sdpa", False) else "eager")
    try:
        yield
    finally:
        choose(model, before)


def _mean_cross_entropy(logits: Tensor, targets: Tensor) -> float:
    positions = targets != IGNORED
    return float(summed_cross_entropy(logits[positions].float(), targets[positions])) / max(int(positions.sum()), 1)


def _difference(found: Tensor, expected: Tensor) -> float:
    """Relative to what is expected, as vectors; infinite where something is not a number."""
    difference = float((found - expected).norm() / expected.norm().clamp_min(1e-30))
    return difference if difference == difference else float("inf")  # noqa: PLR0124  # only nan differs from itself


def _near(one: float, other: float, within: float) -> bool:
    return abs(one - other) <= within * max(abs(other), 1.0)
