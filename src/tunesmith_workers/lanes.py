"""Parts of a batch side by side on a CPU, each in a process of its own instead of all threads on each operation.

An operation of a small model is over in microseconds, and threads that share it wait for each other thousands of times
in a step; threads with a part each would wait as often for Python's one lock. With anything else running, each wait may
last until the scheduler comes around. Lanes are processes that meet once in a step. They are forked, so the frozen
weights are in memory once; trained parameters lie in memory that all see, so what the optimizer does here is seen there,
and gradients come back in the same way. Results do not depend on which lane is faster.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import mmap
import multiprocessing
import os
import pickle
import signal
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith_workers.faults import WorkerFault
from tunesmith_workers.padding_free import drops

Work = Callable[[Any], tuple[Any, Sequence[Tensor]]]
"""From what is asked to a result, which is sent by value, and the gradients of all trained parameters."""

_MOST = 4
"""More lanes make parts of a batch too small to keep a thread busy; what is left goes into threads for each."""

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, sys/prctl.h


class Lanes:
    """Processes that compute gradients of what this one has in memory when they are started.

    The parameters move into memory that all share. Whoever gives them other memory afterwards must start new lanes.

    Raises:
        OSError: the system has no memory for them, or no processes; nothing is left of those that were started.
    """

    def __init__(self, count: int, work: Work, parameters: Sequence[nn.Parameter]) -> None:
        self.count = count
        self._parameters = parameters
        self._lanes: list[_Lane] = []
        threads = max(1, torch.get_num_threads() // count)
        try:
            for parameter in parameters:
                parameter.data = _shared(parameter.shape, parameter.dtype).copy_(parameter.data)
            for _ in range(count):
                self._lanes.append(_Lane(work, parameters, threads, others=self._lanes))
        except OSError:
            self.close()
            raise
        atexit.register(self.close)  # before multiprocessing waits for processes that wait for this one

    def add_gradients(self, requests: Sequence[Any]) -> list[Any]:
        """Have each request worked on in a lane of its own, and add their gradients to the parameters' ``grad``.

        The results are returned in the order of the requests, in which gradients are added, too: sums of floats depend
        on it. There must not be more requests than lanes.

        Raises:
            WorkerFault: a lane has died.
        """
        used = self._lanes[: len(requests)]
        for lane, request in zip(used, requests, strict=True):
            lane.send(request)
        results = [lane.receive() for lane in used]
        for number, parameter in enumerate(self._parameters):
            for lane in used:
                gradient = lane.gradients[number]
                parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.add_(gradient)
        return results

    def close(self) -> None:
        """End the processes, in the middle of what they do."""
        atexit.unregister(self.close)
        for lane in self._lanes:
            lane.close()


class _Lane:
    """One process, and the memory that its gradients come in."""

    def __init__(self, work: Work, parameters: Sequence[nn.Parameter], threads: int, others: Sequence[_Lane]) -> None:
        self.gradients = [_shared(parameter.shape, parameter.dtype) for parameter in parameters]
        self.connection, theirs = multiprocessing.Pipe()
        # What they inherit of each other's pipes would keep those open after this process has died.
        ours = [self.connection, *(other.connection for other in others)]
        self._process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(theirs, ours, work, self.gradients, threads), daemon=True
        )
        with warnings.catch_warnings():
            # The other threads are torch's, which is told to use one in there, as its data loaders do.
            warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
            self._process.start()
        theirs.close()

    def send(self, request: Any) -> None:
        try:
            self.connection.send_bytes(pickle.dumps(request))
        except OSError:
            raise self._died() from None

    def receive(self) -> Any:
        try:
            failed, result = pickle.loads(self.connection.recv_bytes())  # noqa: S301  # from our own process
        except (EOFError, OSError):
            raise self._died() from None
        if failed:
            raise result
        return result

    def close(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()

    def _died(self) -> WorkerFault:
        self._process.join()
        return WorkerFault(
            f"a process that computed a part of the batch was ended with {self._process.exitcode}",
            where="training.per_device_train_batch_size",
            mend="if the machine had too little memory (-9 then), halve it and double gradient_accumulation_steps",
        )


def _shared(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """A tensor in memory that forked processes see, too. It needs no room in /dev/shm, which is small in containers."""
    count = shape.numel()
    memory = mmap.mmap(-1, max(1, count * dtype.itemsize))
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape) if count else torch.empty(shape, dtype=dtype)


def _serve(
    connection: Connection, not_ours: Sequence[Connection], work: Work, gradients: Sequence[Tensor], threads: int
) -> None:
    """Answer until the other end is closed. In a new process."""
    _live_and_die_with(os.getppid())
    for other in not_ours:
        other.close()
    torch.set_num_threads(threads)
    gc.freeze()  # what is inherited stays for good and is not looked through again and again
    with contextlib.suppress(EOFError, OSError):
        while True:
            request = pickle.loads(connection.recv_bytes())  # noqa: S301  # from the process that started this one
            connection.send_bytes(_answer(work, request, gradients))


def _live_and_die_with(parent: int) -> None:
    """Leave signals to the parent, who decides when to stop, but do not outlive it in the middle of a long step."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _answer(work: Work, request: Any, gradients: Sequence[Tensor]) -> bytes:
    try:
        result, found = work(request)
        for gradient, value in zip(gradients, found, strict=True):
            gradient.copy_(value)
        return pickle.dumps((False, result))
    except Exception as error:  # noqa: BLE001  # it is raised where the work was asked for
        return _failure(error)


def _failure(error: Exception) -> bytes:
    try:
        return pickle.dumps((True, error))
    except (pickle.PicklingError, TypeError, AttributeError):
        return pickle.dumps((True, RuntimeError(f"{type(error).__name__}: {error}")))


def lanes_for(model: nn.Module) -> int | None:
    """How many lanes help and change nothing: on a CPU, without dropout, whose random numbers lanes would not share."""
    count = min(torch.get_num_threads(), _MOST)
    if drops(model) or count < 2 or next(model.parameters()).device.type != "cpu":
        return None
    return count


def split(batch: Mapping[str, Tensor], count: int) -> list[dict[str, Any]]:
    """The rows of a batch in up to ``count`` parts, padded no further than each part needs.

    Rows come sorted by length, so each part takes every ``count``-th.
    """
    parts = []
    for number in range(min(count, len(batch["input_ids"]))):
        mask = batch["attention_mask"][number::count]
        length = int(mask.sum(1).max())
        parts.append({name: value[number::count, :length] for name, value in batch.items()})
    return parts
