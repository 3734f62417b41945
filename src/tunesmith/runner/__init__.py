"""Where attempts run: the executor protocol and the local one, slots, and reading logs while they are written.

Knows processes and files, not runs: what an end means for a run is decided in ``runs/``.
"""

from tunesmith.runner.calls import WorkerCalls
from tunesmith.runner.descriptors import AS_INHERITED, ChildDescriptors, raise_limit
from tunesmith.runner.executor import Executor, Launch, Started
from tunesmith.runner.local import LocalExecutor
from tunesmith.runner.slots import Demand, Gpu, GpuProbe, Slots, find_gpus
from tunesmith.runner.tail import LONGEST_LINE, Line, LogReader, log_size, open_log

__all__ = [
    "AS_INHERITED",
    "LONGEST_LINE",
    "ChildDescriptors",
    "Demand",
    "Executor",
    "Gpu",
    "GpuProbe",
    "Launch",
    "Line",
    "LocalExecutor",
    "LogReader",
    "Slots",
    "Started",
    "WorkerCalls",
    "find_gpus",
    "log_size",
    "open_log",
    "raise_limit",
]
