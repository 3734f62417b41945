"""Which GPU a deployment gets: one of its own, where the machine has any. CPU slots are for runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tunesmith.errors import Conflict, InvalidInput
from tunesmith.recipes.suggest import shortened
from tunesmith.runner import Gpu


class GpuLeases(Protocol):
    """The leases of this machine, by run or deployment."""

    @property
    def gpus(self) -> Sequence[Gpu]: ...

    @property
    def leased_gpus(self) -> frozenset[str]: ...

    def adopt(self, run_id: str, gpus: tuple[str, ...]) -> None: ...

    def release(self, run_id: str) -> None: ...


def lease(leases: GpuLeases, deployment_id: str, preferred: str | None) -> tuple[str, ...]:
    """Lease one; none on a machine without any.

    Raises:
        InvalidInput: there is no such GPU.
        Conflict: it is in use, or all of them are.
    """
    fitting = _fitting(leases.gpus, preferred)
    if not fitting:
        return ()
    free = [gpu for gpu in fitting if gpu.id not in leases.leased_gpus]
    if not free:
        which = f"GPU {preferred}" if preferred is not None else "every GPU"
        raise Conflict(
            f"{which} is in use by a run or another deployment",
            where="preferred_gpu",
            mend="wait for it, or end what uses it; GET /api/v1/deployments and GET /v1/runs show that",
        )
    leases.adopt(deployment_id, (free[0].id,))
    return (free[0].id,)


def _fitting(gpus: Sequence[Gpu], preferred: str | None) -> list[Gpu]:
    """Those that are meant: by index, by UUID, or by a part of the name."""
    if preferred is None:
        return list(gpus)
    if preferred.isdecimal():
        found = [gpu for index, gpu in enumerate(gpus) if str(index) == preferred]
    else:
        wanted = preferred.casefold()
        found = [gpu for gpu in gpus if gpu.id.casefold() == wanted] or [
            gpu for gpu in gpus if wanted and wanted in gpu.name.casefold()
        ]
    if not found:
        there = ", ".join(f"{index}: {gpu.name} ({gpu.id})" for index, gpu in enumerate(gpus)) or "none"
        raise InvalidInput(
            f"there is no GPU {shortened(preferred)!r}",
            where="preferred_gpu",
            mend=f"this machine has {there}; give an index, a UUID or a name",
        )
    return found
