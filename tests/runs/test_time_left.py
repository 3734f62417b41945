"""The time left is true: against the times of trainings that have ended, it is never far off."""

from __future__ import annotations

import random

import pytest

from tunesmith.runs.time_left import TimeLeft


def recorded(seed, *, steps=200, loading=40.0, preflight=60.0, first=4.0, scoring_every=None, faster_from=None):
    """(time, phase, step, told) as a training tells them, and when it ended."""
    source, at = random.Random(seed), 1_000.0
    lines = [(at, "loading_model", None, None)]
    at += loading
    lines.append((at, "training", 0, None))
    lines += [(at + part * preflight / 4, "preflight", 0, None) for part in range(4)]
    at += preflight
    lines.append((at, "training", 0, 3.0 * steps))
    for step in range(1, steps + 1):
        seconds = source.lognormvariate(0.0, 0.4) * (first if step == 1 else 1.0)
        at += seconds / (3.0 if faster_from and step > faster_from else 1.0)
        lines.append((at, "training", step, None))
        if scoring_every and step % scoring_every == 0:
            lines += [(at, "evaluating", None, None), (at + 2.0, "saving", step, None)]
            at += 3.0
    return lines, at


@pytest.mark.parametrize("scoring_every", [None, 10])
@pytest.mark.parametrize("preflight", [0.0, 8.0, 600.0])
@pytest.mark.parametrize("seed", range(5))
def test_after_a_few_steps_it_is_true(seed, preflight, scoring_every):
    """However long the preflight took and however slow the first step was: within a factor of 1.5 of what truly remained."""
    lines, end = recorded(seed, preflight=preflight, scoring_every=scoring_every)
    left = TimeLeft()
    for at, phase, step, told in lines:
        left.take(at, phase=phase, step=step, told=told)
        if step is not None and 12 <= step <= 190:
            assert (end - at) / 1.5 <= left.seconds(200) <= (end - at) * 1.5, step


def test_a_machine_that_becomes_faster_is_noticed():
    """The latest half of the steps counts."""
    lines, end = recorded(1, steps=400, faster_from=100)
    left = TimeLeft()
    for at, phase, step, told in lines:
        left.take(at, phase=phase, step=step, told=told)
        if step == 200:
            assert (end - at) / 1.5 <= left.seconds(400) <= (end - at) * 1.5


def test_before_there_is_a_speed_it_is_what_the_process_expects():
    """Less what was done since; the first step alone is no measure."""
    left = TimeLeft()
    assert left.seconds(100) is None
    left.take(0.0, phase="preflight", step=0, told=None)
    assert left.seconds(100) is None
    left.take(60.0, phase="training", step=0, told=200.0)
    assert left.seconds(100) == 200.0
    left.take(90.0, phase="training", step=1, told=None)
    assert left.seconds(100) == 198.0
    left.take(92.0, phase="training", step=2, told=None)
    assert left.seconds(100) == 196.0


def test_another_attempt_begins_anew():
    """It goes back to its checkpoint: the time in between was spent on neither."""
    left = TimeLeft()
    for step in range(50):
        left.take(float(step), phase="training", step=step, told=None)
    for step in range(20, 40):
        left.take(10_000.0 + 2 * step, phase="training", step=step, told=None)
    assert left.seconds(100) == pytest.approx(2 * (100 - 39))


def test_a_long_training_is_remembered_in_little_room():
    """Whatever the number of steps, with the same answer."""
    left = TimeLeft()
    for step in range(100_000):
        left.take(2.0 * step, phase="training", step=step, told=None)
    assert left.seconds(200_000) == pytest.approx(2 * 100_001, rel=1e-3)
    assert len(left._seen) <= 600
