"""What may start now: the protocol between whoever queues work and whoever knows the machine, or the cluster.

A lease is taken before anything starts and is given back when all of it is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU as NVML reports it."""

    id: str
    """Its UUID, which CUDA_VISIBLE_DEVICES understands."""
    name: str
    memory_bytes: int


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a run needs: that many GPUs, or with 0 a CPU slot."""

    gpus: int
    gpu_type: str | None = None


class Capacity(Protocol):
    """Leases by run id."""

    @property
    def gpus(self) -> Sequence[Gpu]:
        """Every GPU there is, leased or not."""
        ...

    def possible(self, demand: Demand) -> bool:
        """Whether it could ever be granted, whatever is leased now."""
        ...

    def check(self, demand: Demand) -> None:
        """Refuse what can never be granted.

        Raises:
            InvalidInput: there are not that many GPUs of that type, leased or not.
        """
        ...

    def take(self, run_id: str, demand: Demand) -> tuple[str, ...] | None:
        """Lease what the run needs; None when it is not free now. No GPUs is a lease, too: of a CPU slot."""
        ...

    def adopt(self, run_id: str, gpus: tuple[str, ...]) -> None:
        """Note the lease of a run that is already alive, even beyond the limits: it is a fact."""
        ...

    def release(self, run_id: str) -> None:
        """Give back what the run has leased, if anything."""
        ...
