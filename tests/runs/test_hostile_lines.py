"""Whatever a run prints: memory and time stay bounded, what can be used is used, and the run ends as it truly ended."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.app import new_run, reached
from tunesmith.records import Callback, Exit, Progress, RunState
from tunesmith.runner import Line
from tunesmith.runs.fields import MOST_NAMES, checked
from tunesmith.runs.fold import Fold, read_event

pytestmark = pytest.mark.anyio
NUMBERS = ("step", "total_steps", "epoch", "eta_seconds", "at")


def said(kind: str, **fields: object) -> bytes:
    return json.dumps({"tunesmith": kind, **fields}).encode() + b"\n"


def folded(*lines: bytes) -> Progress:
    fold = Fold(Progress())
    for line in lines:
        fold.take(read_event(Line(0, len(line), line.rstrip(b"\n"))), now=1.0)
    return fold.progress


@pytest.mark.parametrize("name", [*NUMBERS, "loss"])
@pytest.mark.parametrize("value", ["much", [1], {"a": 1}, True, 10**400, -(10**400), "1" * 400, "1e999", "nan", None])
async def test_what_is_no_number_ends_no_training(open_app, executor, name, value):
    """In any place where a number belongs, beside a callback that counts epochs: the run goes on and ends with its exit."""
    async with open_app(allow_private_urls=True) as app:
        # Nobody listens there; deliveries are only written down.
        run_id = await new_run(app, callback=Callback(url="http://127.0.0.1:9/"))
        await reached(app, run_id, "running")
        lines = [
            said("metrics", **{"step": 1, "epoch": 1.0, "loss": 2.0, name: value}),
            said("progress", **{"step": 2, name: value}),
            said("checkpoint", path=value, step=value, metrics={name: value}),
            said("result", metrics={name: value}, model=value),
            said("message", level=value, text=value, where=value, mend=value),
            said("metrics", step=3, total_steps=10, epoch=3.0, loss=0.5),
        ]
        (app.services.paths.run(run_id).folder / "run.log").write_bytes(b"".join(lines))
        executor.end(run_id, Exit(code=3))
        run = await reached(app, run_id)
        assert (run.state, run.exit.code) == (RunState.FAILED, 3)
        assert (run.progress.step, run.progress.epoch, run.progress.metrics["loss"]) == (3, 3.0, 0.5)


@pytest.mark.parametrize(("text", "number"), [("20", 20), ("2e1", 20), ("+20.0", 20)])
def test_numbers_as_text_are_numbers(text, number):
    """As transformers prints them: a loss or a step in quotes counts like one without."""
    progress = folded(said("metrics", step=text, total_steps=text, epoch=text, loss=text))
    assert (progress.step, progress.total_steps, progress.epoch, progress.metrics["loss"]) == (number,) * 4
    assert progress.warnings == ()


def test_what_is_left_out_is_said_once():
    """A thousand lines with the same fault give one warning, which names the field and what was in it."""
    progress = folded(*[said("metrics", step=step, epoch="first") for step in range(1000)])
    assert progress.step == 999
    assert progress.warnings == ("epoch in a metrics line is text where a number belongs; it was left out",)


async def test_metrics_by_the_hundred_thousand_names(open_app, executor):
    """200,000 names: the first thousand are kept, the run says so, and its end is on record and fits it."""
    async with open_app() as app:
        runs = app.services.runs
        run_id = await new_run(app)
        await reached(app, run_id, "running")
        names = [f"a rather long name of a metric of which there are very many {number}" for number in range(200_000)]
        lines = [said("metrics", step=at, **dict.fromkeys(names[at : at + 500], 1)) for at in range(0, len(names), 500)]
        (app.services.paths.run(run_id).folder / "run.log").write_bytes(b"".join(lines))
        executor.end(run_id)
        run = await reached(app, run_id)
        assert (run.state, run.progress.step) == (RunState.SUCCEEDED, 199_500)
        assert list(run.progress.metrics) == names[:MOST_NAMES]
        (warning,) = runs.warnings.of(run)
        assert "more than 1000 metrics" in warning


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({str(number): 1 for number in range(2000)}, "more than 1000 names"),
        ({"x" * 500: 1}, "a name of more than 200 characters"),
        ({"phase": "x" * 5000}, "phase in a metrics line is too long a text"),
        ({"note": "x" * 50_000}, "note in a metrics line is too long a text"),
    ],
)
def test_one_line_is_bounded(fields, warning):
    """Names and texts of one line have their limits; what is beyond them is left out, and the rest is used."""
    progress = folded(said("metrics", **{"step": 7, **fields}))
    assert progress.step == 7
    assert len(progress.metrics) <= MOST_NAMES
    assert warning in progress.warnings[0]


@given(
    st.sampled_from(["metrics", "progress", "checkpoint", "artifact", "result", "message"]),
    st.dictionaries(
        st.sampled_from([*NUMBERS, "loss", "path", "phase", "metrics", "text", "other"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
    ),
)
def test_what_was_checked_is_checked(kind, fields):
    """Checking once is enough: a second time changes nothing and finds nothing wrong."""
    once = checked(kind, fields).fields
    assert checked(kind, once) == (once, ())
    assert all(isinstance(once.get(name), int | float | None) for name in ("at",))


async def test_an_end_that_does_not_fit_the_record_is_recorded_without_what_makes_it_large(open_app, executor):
    """Notes of an earlier version with a progress larger than any record may be: the end and its exit are on record."""
    async with open_app() as app:
        runs = app.services.runs
        run_id = await new_run(app)
        await reached(app, run_id, "running")
        live = runs.live.get(runs.book.get(run_id))
        live._fold = Fold(Progress(step=5, metrics={f"{'x' * 90} {number}": 1.0 for number in range(187_000)}))
        executor.end(run_id, Exit(code=7))
        run = await reached(app, run_id)
        assert (run.state, run.exit.code, run.progress.step) == (RunState.FAILED, 7, 5)
        assert run.progress.metrics == {}
        assert "did not fit" in runs.warnings.of(run)[0]
