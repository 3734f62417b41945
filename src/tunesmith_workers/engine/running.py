"""The thread that computes, for as long as there is work, and how others hand it work and hear of what it came to."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence

from tunesmith_workers.engine.scheduler import Answer, Event, Scheduler

Deliver = Callable[[list[Event]], object]


class Full(Exception):
    """As many wait as may wait."""


class Running:
    """Computes in a thread of its own. Its methods are called from others."""

    def __init__(
        self,
        scheduler: Scheduler,
        deliver: Deliver,
        *,
        most_waiting: int,
        before_step: Callable[[], object] = lambda: None,
    ) -> None:
        """``deliver`` is called from the thread with what each step came to, and ``before_step`` before each."""
        self._before_step = before_step
        self._scheduler, self._deliver, self._most_waiting = scheduler, deliver, most_waiting
        self._changed = threading.Condition()
        self._new: deque[Answer] = deque()
        self._work: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        return len(self._new) + self._scheduler.waiting

    @property
    def active(self) -> int:
        return self._scheduler.active

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

    def between_steps(self, work: Callable[[], object], seconds: float) -> bool:
        """Have something done while nothing is computed; False when it was not done by the deadline."""
        done = threading.Event()
        failed: list[Exception] = []

        def do() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001  # raised where it was asked for
                failed.append(error)
            done.set()

        with self._changed:
            self._work.append(do)
            self._changed.notify()
        in_time = done.wait(seconds)
        if failed:
            raise failed[0]
        return in_time

    def _run(self) -> None:
        try:
            while self._take():
                self._before_step()
                events = self._scheduler.step()
                if events:
                    self._deliver(events)
        except BaseException:  # nobody would be answered any more: whoever watches sees that the thread is gone
            traceback.print_exc()
            raise

    def _take(self) -> bool:
        """Take in what is new, waiting for it when there is nothing to do; False when it is time to end."""
        with self._changed:
            while not (self._stopping or self._new or self._work or not self._scheduler.idle):
                self._changed.wait()
            work, self._work = self._work, deque()
            while self._new:
                self._scheduler.add(self._new.popleft())
            stopping = self._stopping
        for do in work:
            do()
        return not stopping
