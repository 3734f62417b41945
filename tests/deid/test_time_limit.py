"""What takes for ever is stopped after so much computing, and the row it came from is named."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

import pytest

from tunesmith_workers.data.deidentify import Deidentifier
from tunesmith_workers.data.shapes import RowFault
from tunesmith_workers.process.time_limit import TookTooLong, at_most

# A limit may also run out in a callback of the garbage collector, which Hypothesis has.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def search_for_ever() -> None:
    re.match(r"(a+)+$", "a" * 60 + "!")


def test_an_endless_search_is_stopped():
    """A pattern that backtracks for longer than the universe is old."""
    with pytest.raises(TookTooLong), at_most(0.1):
        search_for_ever()


def test_it_is_not_swallowed_by_what_it_stops():
    """Libraries that go on after any exception must not go on after this one."""
    with pytest.raises(TookTooLong), at_most(0.1):
        go_on_after_anything()


class ComputesWhenDeleted:
    """Whatever is raised while it is deleted, Python drops."""

    def __del__(self) -> None:
        search_for_ever()


def test_it_is_stopped_again_where_python_drops_the_exception():
    """As in callbacks of the garbage collector, in which a limit may run out by chance."""
    with pytest.raises(TookTooLong), at_most(0.1):
        lose_the_first_exception()


def lose_the_first_exception() -> None:
    ComputesWhenDeleted()
    search_for_ever()


def go_on_after_anything() -> None:
    while True:
        with contextlib.suppress(Exception):
            search_for_ever()


def test_work_within_the_limit_is_left_alone():
    """And the one after it has its own time."""
    for _ in range(3):
        with at_most(60):
            sum(range(1000))


class Endless:
    """An engine that never ends with texts that say so."""

    policy_id = "default"
    version = "1"

    def session(self, _seed=None):
        return self

    def together(self, texts: Sequence[str]):
        if "endless" in texts:
            search_for_ever()
        return Done(list(texts))


class Done:
    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.counts: dict[str, int] = {}


def test_a_row_that_takes_for_ever_is_a_fault_of_that_row():
    """It says how long it was tried; other rows go on."""
    deidentifier = Deidentifier(Endless(), 1, row_seconds=0.1)
    with pytest.raises(RowFault, match=r"could not be de-identified within 0\.1\d* s; it has 7 characters"):
        deidentifier.row({"prompt": "endless"})
    assert deidentifier.row({"prompt": "short"}) == {"prompt": "short"}
