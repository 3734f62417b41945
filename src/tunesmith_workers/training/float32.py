"""Computing in float32 what is held in bfloat16, without a second copy of the model.

Two ways to the same loss differ in bfloat16 by what it rounds, which hides what a router's loss or a forgotten position
adds. Here each operation gets its operands in float32 as it runs, so a weight is copied only while it is used. This is
for comparing on a few short rows; it is much slower than the model is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import embedding
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

_LOW = (torch.bfloat16, torch.float16)

_LARGE = 1 << 16
"""Numbers in a tensor from which on it is worth looking whether it is a weight that need not be kept in float32."""

_LEAVES_NUMBERS = frozenset({
    "__getitem__", "chunk", "contiguous", "data_ptr", "detach", "dim", "element_size", "expand", "is_contiguous",
    "is_floating_point", "ndimension", "numel", "permute", "reshape", "select", "size", "split", "squeeze", "stride", "t",
    "transpose", "unbind", "unflatten", "unsqueeze", "view",
})  # fmt: skip
"""What moves or describes numbers: a large weight is cast after the part of it that is used has been picked."""


@contextmanager
def in_float32(device: str) -> Iterator[None]:
    """Have all operations, and all gradients asked for in here, computed in float32; custom backward passes on a CPU only."""
    with torch.autocast(device, enabled=False), saved_tensors_hooks(_lower, _raise), _InFloat32():
        yield


class _InFloat32(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], _: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name in _LEAVES_NUMBERS or name == "__set__":
            return function(*args, **(kwargs or {}))
        if name == "__get__" or function is embedding:
            found = function(*args, **(kwargs or {}))
            return found if name == "__get__" and isinstance(found, Tensor) else _raised(found)
        if name in ("bfloat16", "half"):
            return _raised(args[0])
        return function(*tree_map(_raised, args), **tree_map(_raised, kwargs or {}))


def _raised(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return torch.float32 if value in _LOW else value
    return value.float() if isinstance(value, Tensor) and value.dtype in _LOW else value


def _lower(saved: Tensor) -> Tensor:
    """Keep for the backward pass what a weight was before it was cast; nothing else fits into so few digits."""
    with torch._C.DisableTorchFunction():  # noqa: SLF001  # torch's documented way to leave a mode
        if saved.dtype != torch.float32 or saved.numel() < _LARGE:
            return saved
        low = saved.bfloat16()
        return low if torch.equal(low.float(), saved) else saved


def _raise(saved: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():  # noqa: SLF001  # likewise
        return saved.float() if saved.dtype in _LOW else saved
