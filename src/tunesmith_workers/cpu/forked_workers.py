"""Parts of a batch at once on a CPU, each in a forked worker instead of all threads on each operation.

An operation of a small model is over in microseconds, and threads that share it wait for each other thousands of times
in a step; threads with a part each would wait as often for Python's one lock. With anything else running, each wait may
last until the scheduler comes around. Forked workers meet once in a step. They share the frozen weights in memory;
trained parameters lie in memory that all see, so what the optimizer does here is seen there, and gradients come back in
the same way. Results do not depend on which worker is faster.

Each worker computes in ONE thread: OpenMP's pool of threads does not survive a fork, and whoever asks it for a second
thread waits for ever. No answer is waited for without a deadline; what to do without the workers is decided by the
caller (``batch_parts``).
"""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith_workers.cpu.forked_worker import Answer, ForkedWorker, Work, WorkerFailed, shared
from tunesmith_workers.models.structure import drops
from tunesmith_workers.process.stopping import StepDropped

_MOST = 16
"""More workers than this read the frozen weights more often than their parts of a batch are worth."""

_POLL = 0.25
"""Seconds. Time is counted in these: it only passes while this process itself is running."""
_AFTER_STOP = 5.0
"""Seconds that a step may still take when the training is asked to stop; its checkpoint must be written, too."""


class Patience:
    """How long an answer may take: many times as long as the slowest of late, and never less than ``least`` seconds."""

    _FACTOR = 10

    def __init__(self, seconds_per_token: float = 0.0, least: float = 60.0) -> None:
        self._least = least
        self._seen = deque([seconds_per_token], maxlen=16)

    def limit(self, tokens: int) -> float:
        return max(self._least, self._FACTOR * max(self._seen) * tokens)

    def took(self, seconds: float, tokens: int) -> None:
        self._seen.append(seconds / max(tokens, 1))


class ForkedWorkers:
    """Forked workers that compute gradients of what this process has in memory when they are started.

    The parameters move into memory that all share. Whoever gives them other memory afterwards must start new workers.

    Raises:
        OSError: the system has no memory for them, or no processes; nothing is left of those that were started.
    """

    def __init__(
        self,
        count: int,
        work: Work,
        parameters: Sequence[nn.Parameter],
        *,
        patience: Patience | None = None,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self.count = count
        self._parameters = parameters
        self._patience = patience or Patience()
        self._stop_asked = stop_asked
        self._workers: list[ForkedWorker] = []
        try:
            for parameter in parameters:
                parameter.data = shared(parameter.shape, parameter.dtype).copy_(parameter.data)
            for _ in range(count):
                self._workers.append(ForkedWorker(work, parameters, others=self._workers))
        except OSError:
            self.close()
            raise
        atexit.register(self.close)  # before multiprocessing waits for processes that wait for this one

    def add_gradients(self, requests: Sequence[Any], tokens: Sequence[int] = (1,)) -> list[Any]:
        """Have each request worked on in a worker of its own, and add their gradients to the parameters' ``grad``.

        The results are returned in the order of the requests, in which gradients are added, too: sums of floats depend
        on it. There must not be more requests than workers. ``tokens`` says how large each request is.

        Raises:
            WorkerFailed: a worker has ended, or did not answer in time. No gradient was added.
            StepDropped: the training was asked to stop, and the answers do not come soon. No gradient was added.
            Exception: what a worker raised. No gradient was added.
        """
        used = self._workers[: len(requests)]
        began = time.monotonic()
        for worker, request in zip(used, requests, strict=True):
            worker.send(request)
        answers = self._answers(used, self._patience.limit(max(tokens)))
        self._patience.took(time.monotonic() - began, max(tokens))
        for error in (answer.error for answer in answers if answer.error is not None):
            raise error
        for number, parameter in enumerate(self._parameters):
            for worker, answer in zip(used, answers, strict=True):
                if number not in answer.untouched:
                    add_gradient(parameter, worker.gradients[number].clone())
        return [answer.result for answer in answers]

    def _answers(self, workers: Sequence[ForkedWorker], limit: float) -> list[Answer]:
        found: dict[ForkedWorker, Answer] = {}
        waited = after_stop = 0.0
        while len(found) < len(workers):
            missing = {worker.connection: worker for worker in workers if worker not in found}
            # A signal is handled in here, and may raise.
            ready = wait(list(missing), timeout=_POLL)
            found |= {worker: worker.receive() for connection, worker in missing.items() if connection in ready}
            if ready:
                continue
            waited += _POLL
            after_stop += _POLL if self._stop_asked() else 0.0
            if after_stop >= _AFTER_STOP:
                raise StepDropped
            if waited >= limit:
                raise WorkerFailed(f"a forked worker did not answer within {limit:.0f} s")
        return [found[worker] for worker in workers]

    def close(self) -> None:
        """End the processes, in the middle of what they do."""
        atexit.unregister(self.close)
        for worker in self._workers:
            worker.close()
        self._workers = []


def add_gradient(parameter: nn.Parameter, gradient: Tensor) -> None:
    """Add to ``grad``, or make it of ``gradient`` itself."""
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def forked_workers_for(model: nn.Module, rows: int) -> int | None:
    """How many forked workers help with batches of ``rows`` rows, and change nothing.

    On a CPU, and without dropout, whose random numbers they would not share. A worker has a row at the least and one
    thread; where that leaves more than half of the threads idle, they are better used together in one process.
    """
    threads = torch.get_num_threads()
    count = min(threads, rows, _MOST)
    if drops(model) or count < 2 or next(model.parameters()).device.type != "cpu":
        return None
    return count if 2 * count >= threads else None
