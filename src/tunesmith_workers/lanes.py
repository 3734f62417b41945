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
import contextlib
import ctypes
import gc
import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from tunesmith_workers.padding_free import drops
from tunesmith_workers.stopping import StepDropped

Work = Callable[[Any], tuple[Any, Sequence[Tensor | None]]]
"""From what is asked to a result, which is sent by value, and the gradients of all trained parameters. None stands for
the gradient of a parameter that had no part in the result."""

_MOST = 16
"""More workers than this read the frozen weights more often than their parts of a batch are worth."""

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, sys/prctl.h
_LEFT_TO_PARENT = (signal.SIGTERM, signal.SIGINT)

_POLL = 0.25
"""Seconds. Time is counted in these: it only passes while this process itself is running."""
_STALLED = 60
"""Seconds in which a request must be taken, and an answer that has begun must end."""
_AFTER_STOP = 5.0
"""Seconds that a step may still take when the training is asked to stop; its checkpoint must be written, too."""


class WorkerFailed(Exception):
    """A forked worker has ended, or did not answer in time. What it was asked for is to be computed elsewhere."""


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


class Lanes:
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
        self._lanes: list[_Lane] = []
        try:
            for parameter in parameters:
                parameter.data = _shared(parameter.shape, parameter.dtype).copy_(parameter.data)
            for _ in range(count):
                self._lanes.append(_Lane(work, parameters, others=self._lanes))
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
        used = self._lanes[: len(requests)]
        began = time.monotonic()
        for lane, request in zip(used, requests, strict=True):
            lane.send(request)
        answers = self._answers(used, self._patience.limit(max(tokens)))
        self._patience.took(time.monotonic() - began, max(tokens))
        for error in (answer.error for answer in answers if answer.error is not None):
            raise error
        for number, parameter in enumerate(self._parameters):
            for lane, answer in zip(used, answers, strict=True):
                if number not in answer.untouched:
                    add_gradient(parameter, lane.gradients[number].clone())
        return [answer.result for answer in answers]

    def _answers(self, lanes: Sequence[_Lane], limit: float) -> list[_Answer]:
        found: dict[_Lane, _Answer] = {}
        waited = after_stop = 0.0
        while len(found) < len(lanes):
            missing = {lane.connection: lane for lane in lanes if lane not in found}
            # A signal is handled in here, and may raise.
            ready = wait(list(missing), timeout=_POLL)
            found |= {lane: lane.receive() for connection, lane in missing.items() if connection in ready}
            if ready:
                continue
            waited += _POLL
            after_stop += _POLL if self._stop_asked() else 0.0
            if after_stop >= _AFTER_STOP:
                raise StepDropped
            if waited >= limit:
                raise WorkerFailed(f"a forked worker did not answer within {limit:.0f} s")
        return [found[lane] for lane in lanes]

    def close(self) -> None:
        """End the processes, in the middle of what they do."""
        atexit.unregister(self.close)
        for lane in self._lanes:
            lane.close()
        self._lanes = []


def add_gradient(parameter: nn.Parameter, gradient: Tensor) -> None:
    """Add to ``grad``, or make it of ``gradient`` itself."""
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


class _Answer(msgspec.Struct, frozen=True):
    """What a worker made of a request."""

    error: Exception | None
    result: Any
    untouched: frozenset[int]
    """Numbers of the parameters that have no gradient."""


class _Lane:
    """One worker, and the memory that its gradients come in."""

    def __init__(self, work: Work, parameters: Sequence[nn.Parameter], others: Sequence[_Lane]) -> None:
        self.gradients = [_shared(parameter.shape, parameter.dtype) for parameter in parameters]
        self.connection, theirs = _connected()
        # What they inherit of each other's connections would keep those open after this process has died.
        ours = [self.connection, *(other.connection for other in others)]
        # A signal between the fork and the moment when the worker ignores it would be handled twice.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_PARENT)
        self._process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(theirs, ours, work, self.gradients, mask), daemon=True
        )
        try:
            with warnings.catch_warnings():
                # The other threads are torch's, of which a worker uses none, and the one that waits for signals.
                warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
                self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()

    def send(self, request: Any) -> None:
        try:
            self.connection.send_bytes(pickle.dumps(request))
        except OSError:
            raise self._failed() from None

    def receive(self) -> _Answer:
        try:
            error, result, untouched = pickle.loads(self.connection.recv_bytes())  # noqa: S301  # from our own process
        except (EOFError, OSError):
            raise self._failed() from None
        return _Answer(error, result, frozenset(untouched))

    def close(self) -> None:
        self.connection.close()
        if self._process.pid is not None:
            self._process.kill()
            self._process.join(5.0)

    def _failed(self) -> WorkerFailed:
        self._process.join(1.0)
        code = self._process.exitcode
        if code is None:
            return WorkerFailed("a forked worker takes no more requests")
        how = f"signal {-code}, for want of memory if nobody sent it" if code < 0 else f"exit code {code}"
        return WorkerFailed(f"a forked worker was ended by {how}")


def _connected() -> tuple[Connection, Connection]:
    """Two ends of a connection. On the first, nothing waits for longer than ``_STALLED``."""
    ours, theirs = socket.socketpair()
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _STALLED, 0))
    return Connection(ours.detach()), Connection(theirs.detach())


def _shared(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """A tensor in memory that forked processes see, too. It needs no room in /dev/shm, which is small in containers."""
    count = shape.numel()
    memory = mmap.mmap(-1, max(1, count * dtype.itemsize))
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape) if count else torch.empty(shape, dtype=dtype)


def _serve(
    connection: Connection,
    not_ours: Sequence[Connection],
    work: Work,
    gradients: Sequence[Tensor],
    mask: set[signal.Signals],
) -> None:
    """Answer until the other end is closed. In a new process."""
    _live_and_die_with(os.getppid(), mask)
    for other in not_ours:
        other.close()
    torch.set_num_threads(1)
    gc.freeze()  # what is inherited stays for good and is not looked through again and again
    with contextlib.suppress(EOFError, OSError):
        while True:
            request = pickle.loads(connection.recv_bytes())  # noqa: S301  # from the process that started this one
            connection.send_bytes(_answer(work, request, gradients))


def _live_and_die_with(parent: int, mask: set[signal.Signals]) -> None:
    """Leave signals to the parent, who decides when to stop, but do not outlive it in the middle of a long step."""
    signal.set_wakeup_fd(-1)
    for number in _LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _answer(work: Work, request: Any, gradients: Sequence[Tensor]) -> bytes:
    try:
        result, found = work(request)
        for gradient, value in zip(gradients, found, strict=True):
            if value is not None:
                gradient.copy_(value)
        return pickle.dumps((None, result, [number for number, value in enumerate(found) if value is None]))
    except Exception as error:  # noqa: BLE001  # it is raised where the work was asked for
        return _failure(error)


def _failure(error: Exception) -> bytes:
    """The error with its traceback, which pickle drops, as a note."""
    note = f"raised in a forked worker:\n{traceback.format_exc()}"
    try:
        error.add_note(note)
        sent = pickle.dumps((error, None, ()))
        pickle.loads(sent)  # noqa: S301  # made here; some errors cannot be rebuilt from what they keep
    except Exception:  # noqa: BLE001  # an error's own methods run in here, and whatever they raise is not the news
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.add_note(note)
        return pickle.dumps((told, None, ()))
    return sent


def lanes_for(model: nn.Module, rows: int) -> int | None:
    """How many forked workers help with batches of ``rows`` rows, and change nothing.

    On a CPU, and without dropout, whose random numbers they would not share. A worker has a row at the least and one
    thread; where that leaves more than half of the threads idle, they are better used together in one process.
    """
    threads = torch.get_num_threads()
    count = min(threads, rows, _MOST)
    if drops(model) or count < 2 or next(model.parameters()).device.type != "cpu":
        return None
    return count if 2 * count >= threads else None


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
