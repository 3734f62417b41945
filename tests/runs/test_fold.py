"""Folding printed lines into progress: truthful numbers from honest processes, and no crash from the others."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.records import Progress
from tunesmith.runner import Line
from tunesmith.runs.fold import Fold, read_event

numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**53, 1e308, -1e308])
values = numbers | st.booleans() | st.none() | st.text(max_size=10) | st.lists(numbers, max_size=2)
fields = st.dictionaries(
    st.sampled_from(["step", "total_steps", "epoch", "at", "loss", "phase", "part", "path", "metrics", "model", "level", "text"]),
    values | st.dictionaries(st.text(max_size=5), numbers, max_size=2),
)  # fmt: skip
kinds = st.sampled_from(["metrics", "progress", "checkpoint", "result", "message", "artifact"])


def folded(*lines: str | bytes, start: Progress | None = None) -> Progress:
    fold, offset = Fold(start or Progress()), 0
    for line in lines:
        content = line.encode() if isinstance(line, str) else line
        end = offset + len(content) + 1
        fold.take(read_event(Line(offset, end, content)), now=1_000.0 + offset)
        offset = end
    return fold.progress


def event(kind: str, **fields: object) -> str:
    return json.dumps({"tunesmith": kind, **fields})


@given(st.lists(st.tuples(kinds, fields), max_size=6))
def test_whatever_is_printed_folds_into_a_record_that_can_be_kept(events):
    """Any values in any event: progress stays between 0 and 1, the time left is not negative, and both can be stored."""
    lines = [event(kind, **given_fields) for kind, given_fields in events]
    progress = folded(*lines)
    assert 0.0 <= progress.fraction <= 1.0
    assert progress.eta_seconds is None or progress.eta_seconds >= 0
    assert progress.log_offset == sum(len(line) + 1 for line in lines)
    again = msgspec.json.decode(msgspec.json.encode(progress), type=Progress)
    assert (again.step, again.total_steps, again.metrics) == (progress.step, progress.total_steps, progress.metrics)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_log_folds(lines):
    """Bytes that are no event change nothing but how far the log was read."""
    progress = folded(*lines)
    assert progress.log_offset == sum(len(line) + 1 for line in lines)


def test_the_latest_values_are_kept():
    """Each metric shows its newest value, also when lines name different ones."""
    progress = folded(
        event("progress", phase="loading"),
        event("metrics", step=1, total_steps=10, epoch=0.1, loss=2.0, lr=0.5),
        event("metrics", step=2, epoch=0.2, loss=1.5, phase="training"),
        "some log",
        "{'eval_loss': '1.25', 'epoch': '0.2'}",
    )
    assert (progress.phase, progress.step, progress.total_steps, progress.epoch) == ("training", 2, 10, 0.2)
    assert progress.metrics == {"loss": 1.5, "lr": 0.5, "eval_loss": 1.25}
    assert progress.fraction == 0.2


def test_how_far_a_phase_has_come_is_no_metric():
    """The counters of progress lines are not among the run's metrics; those of metrics lines are."""
    progress = folded(
        event("metrics", step=1, loss=2.0, batch=8),
        event("progress", phase="evaluating", batch=3, total_batches=10, elapsed_seconds=1.5),
    )
    assert progress.metrics == {"loss": 2.0, "batch": 8.0}


def test_a_part_belongs_to_its_phase():
    """What a process does within a phase is kept until it names a phase again."""
    trying = event("progress", phase="preflight", part="the longest batch")
    assert folded(trying, event("progress", step=0)).part == "the longest batch"
    assert folded(trying, event("metrics", step=1, loss=1.0)).part == "the longest batch"
    assert folded(trying, event("progress", phase="preflight", part="a save")).part == "a save"
    assert folded(trying, event("progress", phase="training")).part is None
    assert folded(event("progress", phase="preflight", part=7)).part is None


def test_checkpoint_result_and_error_are_noted():
    """The newest checkpoint, the finished model with its scores, and the last error, with where and mend."""
    progress = folded(
        event("checkpoint", path="/c/1", step=10),
        event("checkpoint", path="/c/2", step=20),
        event("message", level="warning", text="slow"),
        event("message", level="error", text="bad row", where="train.jsonl:7", mend="close the quote"),
        event("result", model="/out", metrics={"exact_match": 1.0, "note": "text"}),
    )
    assert (progress.ckpt_path, progress.ckpt_step, progress.output_path) == ("/c/2", 20, "/out")
    assert progress.metrics == {"exact_match": 1.0}
    assert progress.error is not None
    assert str(progress.error) == "train.jsonl:7: bad row (close the quote)"


def test_the_time_left_follows_the_speed_of_the_last_steps():
    """Two seconds a step, 90 steps to go."""
    lines = [event("metrics", step=step, total_steps=100, at=5_000 + 2 * step) for step in range(1, 11)]
    assert folded(*lines).eta_seconds == pytest.approx(180.0)


def test_a_slow_start_does_not_spoil_the_estimate_for_ever():
    """Only the latest steps count: the minutes of loading before the first are forgotten."""
    lines = [event("progress", step=0, total_steps=1000, at=0)]
    lines += [event("metrics", step=step, at=10_000 + step) for step in range(1, 31)]
    assert folded(*lines).eta_seconds == pytest.approx(970.0)


@pytest.mark.parametrize(
    "second",
    [
        {"step": 1, "at": 20},
        {"step": 0, "at": 20},
        {"step": 2, "at": 10},
        {"step": 2, "at": 5},
        {"step": 2, "at": 1e308},
    ],
)
def test_standing_still_gives_no_estimate(second):
    """No step forward or a clock that stands still or runs backwards: no number rather than a wrong one."""
    progress = folded(event("progress", step=1, total_steps=10, at=10), event("progress", **second))
    assert progress.eta_seconds is None or second["at"] == 1e308


def test_more_steps_than_announced_is_done_not_more():
    """A process that runs past its own total shows 1.0 and nothing left, never a negative time."""
    progress = folded(event("progress", step=9, total_steps=10, at=10), event("progress", step=12, at=11))
    assert progress.fraction == 1.0
    assert progress.eta_seconds == 0


@pytest.mark.parametrize("step", [-5, 1e300, 10**30, "three", True, None, [3]])
def test_what_is_no_count_is_no_step(step):
    """A step that cannot be one is passed over."""
    assert folded(event("progress", step=2, total_steps=4), event("progress", step=step)).step == 2


def test_folding_goes_on_where_it_was():
    """After a restart the rest of the log leads to the same record as reading it in one go."""
    lines = [event("metrics", step=step, total_steps=4, loss=1 / step) for step in range(1, 5)]
    half = folded(*lines[:2])
    whole = folded(*lines)
    rest = folded(*lines[2:], start=half)
    assert (rest.step, rest.metrics, rest.total_steps) == (whole.step, whole.metrics, whole.total_steps)
