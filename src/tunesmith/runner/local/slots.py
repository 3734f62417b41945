"""Who may run now: GPUs are leased exclusively, runs without one share a fixed number of CPU slots.

Leases live in memory only. After a restart they are taken again from the runs that are still alive, by ``adopt``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tunesmith.errors import InvalidInput
from tunesmith.runner.capacity import Demand, Gpu


class Slots:
    """This machine's leases, by run id: the local ``Capacity``."""

    def __init__(self, gpus: Sequence[Gpu], max_cpu_runs: int) -> None:
        self.gpus = tuple(gpus)
        self.max_cpu_runs = max_cpu_runs
        self._leases: dict[str, tuple[str, ...]] = {}

    @property
    def cpu_runs(self) -> int:
        return sum(not gpus for gpus in self._leases.values())

    @property
    def leased_gpus(self) -> frozenset[str]:
        return frozenset(gpu for gpus in self._leases.values() for gpu in gpus)

    def possible(self, demand: Demand) -> bool:
        """Whether this machine could ever grant it, whatever is leased now."""
        return demand.gpus <= len(self._fitting(demand))

    def check(self, demand: Demand) -> None:
        """Refuse what this machine can never grant.

        Raises:
            InvalidInput: there are not that many GPUs of that type, leased or not.
        """
        fitting = self._fitting(demand)
        if not self.possible(demand):
            kind = f" of type {demand.gpu_type}" if demand.gpu_type else ""
            have = ", ".join(gpu.name for gpu in self.gpus) or "none"
            raise InvalidInput(
                f"asks for {demand.gpus} GPUs{kind}, this machine has {len(fitting)} (all: {have})",
                where="resources.count",
                mend=f"ask for at most {len(fitting)}, or leave resources out",
            )

    def take(self, run_id: str, demand: Demand) -> tuple[str, ...] | None:
        """Lease what the run needs; None when it is not free now. No GPUs is a lease, too: of a CPU slot."""
        if demand.gpus == 0:
            if self.cpu_runs >= self.max_cpu_runs:
                return None
            self._leases[run_id] = ()
            return ()
        free = [gpu.id for gpu in self._fitting(demand) if gpu.id not in self.leased_gpus]
        if len(free) < demand.gpus:
            return None
        self._leases[run_id] = tuple(free[: demand.gpus])
        return self._leases[run_id]

    def adopt(self, run_id: str, gpus: tuple[str, ...]) -> None:
        """Note the lease of a run that is already alive, even beyond the limits: it is a fact."""
        self._leases[run_id] = gpus

    def release(self, run_id: str) -> None:
        self._leases.pop(run_id, None)

    def _fitting(self, demand: Demand) -> list[Gpu]:
        wanted = (demand.gpu_type or "").casefold()
        return [gpu for gpu in self.gpus if wanted in gpu.name.casefold()]


class GpuProbe(Protocol):
    """How the machine's GPUs are found."""

    def __call__(self) -> Sequence[Gpu]: ...


def find_gpus() -> Sequence[Gpu]:
    """Ask NVML; no driver means no GPUs."""
    if not Path("/proc/driver/nvidia").exists() and not Path("/dev/nvidiactl").exists():
        return ()  # spares the import on machines without a GPU
    import pynvml  # noqa: PLC0415

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(
            Gpu(
                id=str(pynvml.nvmlDeviceGetUUID(handle)),
                name=str(pynvml.nvmlDeviceGetName(handle)),
                memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            )
            for handle in handles
        )
    finally:
        pynvml.nvmlShutdown()
