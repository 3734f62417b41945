"""The thread that computes, for as long as there is work, and how others hand it work and hear of what it came to.

Everything that torch computes, from loading the model on, is computed in this one thread. OpenMP keeps a pool of threads for each
thread that calls it; with a second pool there are more of them than processors, and then all of them sleep between two operations
where they would have waited awake: a step was measured to take 1.7 times as long.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from tunesmith_workers.engine.scheduler import Answer, Event, Scheduler

Deliver = Callable[[list[Event]], object]
_T = TypeVar("_T")


class Full(Exception):
    """As many wait as may wait."""


class Running:
    """Computes in a thread of its own. Its methods are called from others."""

    def __init__(self, *, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._changed = threading.Condition()
        self._new: deque[Answer] = deque()
        self._work: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._scheduler: Scheduler | None = None
        self._deliver: Deliver = lambda _: None
        self._before_step: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def serve(self, scheduler: Scheduler, deliver: Deliver, before_step: Callable[[], object] = lambda: None) -> None:
        """From now on answers can be made.

        Args:
            scheduler: what is computed next.
            deliver: called from the thread with what each step came to.
            before_step: called from it before each.
        """
        with self._changed:
            self._scheduler, self._deliver, self._before_step = scheduler, deliver, before_step

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        return len(self._new) + (self._scheduler.waiting if self._scheduler else 0)

    @property
    def active(self) -> int:
        return self._scheduler.active if self._scheduler else 0

    def submit(self, answers: Sequence[Answer]) -> None:
        """Have all of them made.

        Raises:
            Full: they would make too many that wait.
        """
        with self._changed:
            if self.waiting + len(answers) > self._most_waiting:
                raise Full
            self._new.extend(answers)
            self._changed.notify()

    def between_steps(self, work: Callable[[], _T], seconds: float | None = None) -> _T:
        """What ``work`` answers, done in the thread while nothing else is computed.

        Raises:
            TimeoutError: it was not done by the deadline. It will be, later.
        """
        done = threading.Event()
        results: list[_T] = []
        failures: list[BaseException] = []

        def do() -> None:
            try:
                results.append(work())
            except BaseException as error:  # noqa: BLE001  # raised where it was asked for
                failures.append(error)
            done.set()

        with self._changed:
            self._work.append(do)
            self._changed.notify()
        if not done.wait(seconds):
            raise TimeoutError
        if failures:
            raise failures[0]
        return results[0]

    def _run(self) -> None:
        try:
            while self._take():
                scheduler = self._scheduler
                if scheduler is not None and not scheduler.idle:
                    self._before_step()
                    events = scheduler.step()
                    if events:
                        self._deliver(events)
        except BaseException:  # nobody would be answered any more: whoever watches sees that the thread is gone
            traceback.print_exc()
            raise

    def _take(self) -> bool:
        """Take in what is new, waiting for it when there is nothing to do; False when it is time to end."""
        with self._changed:
            while not (self._stopping or self._new or self._work or self._has_answers()):
                self._changed.wait()
            work, self._work = self._work, deque()
            while self._new and self._scheduler is not None:
                self._scheduler.add(self._new.popleft())
            stopping = self._stopping
        for do in work:
            do()
        return not stopping

    def _has_answers(self) -> bool:
        return self._scheduler is not None and not self._scheduler.idle
