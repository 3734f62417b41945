"""Where attempts run: executors and capacity, as protocols and on this machine; their logs; calls of worker programs.

Knows processes and files, not runs: what an end means for a run is decided in ``runs/``.
"""

from tunesmith.runner.calls.calls import WorkerCalls
from tunesmith.runner.capacity import Capacity, Demand, Gpu
from tunesmith.runner.executor import Executor, Launch, Started
from tunesmith.runner.local.descriptors import AS_INHERITED, ChildDescriptors, raise_limit
from tunesmith.runner.local.executor import LocalExecutor
from tunesmith.runner.local.listeners import PortHolder, port_holder
from tunesmith.runner.local.slots import GpuProbe, Slots, find_gpus
from tunesmith.runner.logs import LONGEST_LINE, Line, LogReader, log_size, open_log

__all__ = [
    "AS_INHERITED",
    "LONGEST_LINE",
    "Capacity",
    "ChildDescriptors",
    "Demand",
    "Executor",
    "Gpu",
    "GpuProbe",
    "Launch",
    "Line",
    "LocalExecutor",
    "LogReader",
    "PortHolder",
    "Slots",
    "Started",
    "WorkerCalls",
    "find_gpus",
    "log_size",
    "open_log",
    "port_holder",
    "raise_limit",
]
