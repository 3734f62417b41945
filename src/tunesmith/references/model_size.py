"""How many parameters a model has, by the heads of its safetensors files. Loads no weights, and reads some kilobytes."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

import msgspec

from tunesmith.files import open_regular

_LARGEST_HEAD = 100 * 1024 * 1024
_MOST_FILES = 1000


class _Tensor(msgspec.Struct):
    shape: tuple[int, ...] = ()


_decode_head = msgspec.json.Decoder(dict[str, _Tensor]).decode


def parameters_of(folder: Path) -> int | None:
    """The number of parameters of the model in a folder; None where its files do not say. Blocks."""
    try:
        files = sorted(folder.glob("*.safetensors"))[:_MOST_FILES]
        counts = [_parameters_in(file) for file in files]
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, struct.error, ValueError):
        return None
    return sum(counts) or None


def _parameters_in(path: Path) -> int:
    with os.fdopen(open_regular(path), "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > _LARGEST_HEAD:
            raise ValueError("not a head of a safetensors file")
        head = _decode_head(file.read(size))
    return sum(math.prod(tensor.shape) for name, tensor in head.items() if name != "__metadata__")
