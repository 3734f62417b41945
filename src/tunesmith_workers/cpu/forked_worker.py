"""One forked worker: the process, the connection to it, and the memory that its gradients come in.

It computes in ONE thread: OpenMP's pool of threads does not survive a fork, and whoever asks it for a second thread waits
for ever. It leaves signals to its parent and dies with it.
"""

from __future__ import annotations

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
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

Work = Callable[[Any], tuple[Any, Sequence[Tensor | None]]]
"""From what is asked to a result, which is sent by value, and the gradients of all trained parameters. None stands for
the gradient of a parameter that had no part in the result."""

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, sys/prctl.h
_LEFT_TO_PARENT = (signal.SIGTERM, signal.SIGINT)

_STALLED = 60
"""Seconds in which a request must be taken, and an answer that has begun must end."""


class WorkerFailed(Exception):
    """A forked worker has ended, or did not answer in time. What it was asked for is to be computed elsewhere."""


class Answer(msgspec.Struct, frozen=True):
    """What a worker made of a request."""

    error: Exception | None
    result: Any
    untouched: frozenset[int]
    """Numbers of the parameters that have no gradient."""


class ForkedWorker:
    """One worker, and the memory that its gradients come in."""

    def __init__(self, work: Work, parameters: Sequence[nn.Parameter], others: Sequence[ForkedWorker]) -> None:
        self.gradients = [shared(parameter.shape, parameter.dtype) for parameter in parameters]
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

    def receive(self) -> Answer:
        try:
            error, result, untouched = pickle.loads(self.connection.recv_bytes())  # noqa: S301  # from our own process
        except (EOFError, OSError):
            raise self._failed() from None
        return Answer(error, result, frozenset(untouched))

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


def shared(shape: torch.Size, dtype: torch.dtype) -> Tensor:
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
