"""Ids and names below the state folder: safe in a path, in order of creation, never twice."""

from __future__ import annotations

import re
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.paths import StatePaths
from tunesmith.records import LEGAL_MOVES, Progress, RunState, new_id

SAFE = re.compile(r"run_[0-9a-z]{26}")


def test_ids_are_safe_and_differ():
    """An id is a folder's name, a word of a shell and a part of an address: letters and digits only."""
    ids = [new_id("run") for _ in range(5_000)]
    assert len(set(ids)) == len(ids)
    assert all(SAFE.fullmatch(one) for one in ids)


def test_ids_sort_by_creation():
    """Sorted names are in order of creation, to the millisecond."""
    ids = []
    for _ in range(5):
        ids.append(new_id("run"))
        began = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 == began:
            continue
    assert ids == sorted(ids)


def test_everything_lies_in_the_state_folder(tmp_path):
    """Whatever a made id is, its files are inside."""
    paths = StatePaths(tmp_path / "state")
    run = paths.run(new_id("run"))
    inside: list[Path] = [paths.lock, *paths.journals, paths.models, run.config, run.log, run.metrics, run.progress]
    inside += [run.checkpoints, run.output, run.attempt(1).command, run.attempt(1).process, run.attempt(1).exit]
    assert all(path.resolve().is_relative_to(paths.root.resolve()) for path in inside)
    assert len(set(inside)) == len(inside)


def test_final_states_are_ends():
    """From a final state there is no way on, and every other state can reach one."""
    ends = {state for state in RunState if state.final}
    assert ends == {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.LOST}
    for state in RunState:
        reachable, todo = set(), [state]
        while todo:
            for following in LEGAL_MOVES[todo.pop()] - reachable:
                reachable.add(following)
                todo.append(following)
        assert state.final or reachable & ends


@given(st.none() | st.integers(0, 2**53), st.none() | st.integers(0, 2**53))
def test_progress_is_a_fraction(step, total):
    """Whatever a process claims, progress lies between 0 and 1."""
    assert 0.0 <= Progress(step=step, total_steps=total).fraction <= 1.0
