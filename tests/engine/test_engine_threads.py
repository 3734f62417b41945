"""An engine takes the processors that nobody else needs, and gives them back when somebody does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunesmith_workers.engine.threads import Threads


class Machine:
    """A /proc of so many running threads, two of them the engine's own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for number, state in enumerate("RRS"):
            task = place / "self" / "task" / str(number)
            task.mkdir(parents=True)
            (task / "stat").write_text(f"{number} (python) {state} 1 1 1")
        self.chosen: list[int] = []

    def busy(self, others: int) -> None:
        (self.place / "loadavg").write_text(f"0.1 0.2 0.3 {2 + others}/300 4242\n")

    def threads(self, most: int, processors: int) -> Threads:
        return Threads(most, processors=processors, proc=self.place, use=self.chosen.append)

    def pass_time(self, threads: Threads, looks: int = 200) -> None:
        for _ in range(looks):
            threads.look()
            threads.apply()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_busy_machine_leaves_one_thread_and_a_quiet_one_all(machine):
    threads = machine.threads(2, 2)
    machine.busy(0)
    machine.pass_time(threads)
    assert machine.chosen == []
    machine.busy(3)
    machine.pass_time(threads)
    assert machine.chosen == [1]
    machine.busy(0)
    machine.pass_time(threads)
    assert machine.chosen == [1, 2]


def test_many_processors_are_shared(machine):
    threads = machine.threads(32, 64)
    machine.busy(20)
    machine.pass_time(threads)
    assert machine.chosen == []  # there is enough for both
    machine.busy(54)
    machine.pass_time(threads)
    assert machine.chosen[-1] == 10


def test_a_moment_changes_nothing(machine):
    threads = machine.threads(2, 2)
    machine.busy(1)
    machine.pass_time(threads, looks=1)
    machine.busy(0)
    machine.pass_time(threads)
    assert machine.chosen == []


def test_who_is_only_awake_at_times_takes_no_thread(machine):
    """Such as the clients that are answered."""
    threads = machine.threads(2, 2)
    for moment in range(400):
        machine.busy(1 if moment % 4 == 0 else 0)
        machine.pass_time(threads, looks=1)
    assert machine.chosen == []


def test_where_the_system_says_nothing_nothing_changes(machine):
    threads = machine.threads(2, 2)
    machine.pass_time(threads)
    assert machine.chosen == []


def test_this_machine_can_be_looked_at():
    chosen: list[int] = []
    threads = Threads(os.cpu_count() or 1, use=chosen.append)
    threads.look()
    threads.apply()
    assert all(1 <= number <= (os.cpu_count() or 1) for number in chosen)
