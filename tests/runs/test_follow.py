"""Following a run: every log line, metric and change of state once and in order, from any point on."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.app import eventually, new_run, reached
from support.events import Sent, parsed
from tunesmith.errors import InvalidInput
from tunesmith.records import Exit, Run, RunState
from tunesmith.runner import LONGEST_LINE
from tunesmith.runner.logs import read_log, read_metrics
from tunesmith.runs.follow import Follower, Position
from tunesmith.runs.live import LiveRun

pytestmark = pytest.mark.anyio


def metric(step: int) -> bytes:
    return json.dumps({"tunesmith": "metrics", "step": step, "loss": 1 / step}).encode() + b"\n"


async def everything(app, run_id: str, after: str | None = None) -> list[Sent]:
    """What a follower of a run that is over is sent."""
    follower = app.services.runs.followers.follow(run_id, after)
    with anyio.fail_after(60):
        return list(parsed([chunk async for chunk in follower.events()]))


async def finished(app, executor, log: bytes, exit_: Exit | None = Exit(code=0)) -> Run:  # noqa: B008  # frozen
    run_id = await new_run(app)
    await reached(app, run_id, "running")
    (app.services.paths.run(run_id).folder / "run.log").write_bytes(log)
    executor.end(run_id, exit_)
    return await reached(app, run_id)


async def test_a_follower_goes_on_exactly_where_it_was(open_app, executor):
    """From every event of a finished run: the rest is exactly what came after it, and at the end there is nothing."""
    async with open_app() as app:
        log = b"".join(b"line %d\r\n" % step + metric(step) for step in range(1, 15)) + b"no newline at the end"
        run = await finished(app, executor, log)
        sent = await everything(app, run.id)
        assert [one.event for one in sent[:3]] == ["state", "state", "state"]
        assert [one.data["state"] for one in sent if one.event == "state"] == [
            "queued",
            "starting",
            "running",
            "succeeded",
        ]
        assert [one.data["line"] for one in sent if one.event == "log"] == [
            *(f"line {step}" for step in range(1, 15)),
            "no newline at the end",
        ]
        assert [one.data["step"] for one in sent if one.event == "metrics"] == list(range(1, 15))
        assert sent[-1].data["state"] == "succeeded"
        assert len({one.id for one in sent}) == len(sent)
        for position, one in enumerate(sent):
            assert await everything(app, run.id, one.id) == sent[position + 1 :]
        assert app.services.runs.followers.follow(run.id, sent[-1].id).at_end()
        assert not app.services.runs.followers.follow(run.id, sent[-2].id).at_end()


async def test_followers_see_what_happens_while_it_happens(open_app, executor):
    """A follower that is there from the start and one that comes later have seen the same in the end."""
    async with open_app() as app:
        runs = app.services.runs
        run_id = await new_run(app)
        seen: dict[str, list[bytes]] = {"early": [], "late": []}

        async def follow(name: str) -> None:
            async for chunk in runs.followers.follow(run_id, None).events():
                seen[name].append(chunk)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, "early")
            await reached(app, run_id, "running")
            with (app.services.paths.run(run_id).folder / "run.log").open("ab", buffering=0) as log:
                for step in range(1, 6):
                    log.write(metric(step)[:-5])
                    log.write(metric(step)[-5:])
                    await eventually(lambda step=step: f'"step":{step}'.encode() in b"".join(seen["early"]))
                tasks.start_soon(follow, "late")
                await eventually(lambda: b'"step":5' in b"".join(seen["late"]))
                log.write(b"last words")
            executor.end(run_id, Exit(code=3))
            await reached(app, run_id)
        early, late = (list(parsed(chunks)) for chunks in seen.values())
        assert early == late == await everything(app, run_id)
        assert early[-1].data["exit"]["code"] == 3


class SlowLog:
    """A live run whose log a thread reads for as long as it is told to."""

    def __init__(self, live: LiveRun) -> None:
        self._live = live
        self.followers = 0
        self.being_read, self.may_end = threading.Event(), threading.Event()

    @property
    def offset(self) -> int:
        if threading.current_thread() is not threading.main_thread():
            self.being_read.set()
            assert self.may_end.wait(30)
        return self._live.offset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._live, name)


async def test_a_run_that_ends_while_its_log_is_looked_at_is_told_of(open_app, executor):
    """The follower finds nothing new in the log, and the run over: its last change of state is still to be sent."""
    async with open_app() as app:
        run_id = await new_run(app)
        run = await reached(app, run_id, "running")
        book, live = app.services.runs.book, app.services.runs.live.get(run)
        slow = SlowLog(live)
        follower = Follower(book, run_id, app.services.paths.run(run_id), slow, Position())
        seen: list[bytes] = []

        async def follow() -> None:
            seen.extend([chunk async for chunk in follower.events()])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await eventually(slow.being_read.is_set)
            executor.end(run_id, Exit(code=0))
            await reached(app, run_id)
            slow.may_end.set()
        assert [one.data["state"] for one in parsed(seen)] == ["queued", "starting", "running", "succeeded"]


@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"event: state", b"id: 9.9", b"data: {}", b"\n\n", b"\r", b"\0"])
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_log_line_can_forge_an_event(open_app, executor, lines):
    """Newlines, carriage returns, NUL, field names: a browser sees the lines of the log and the true states only."""
    async with open_app() as app:
        run = await finished(app, executor, b"\n".join(lines) + b"\n")
        sent = await everything(app, run.id)
        states = [one.data["state"] for one in sent if one.event == "state"]
        assert states == ["queued", "starting", "running", "succeeded"]
        shown = [one.data["line"] for one in sent if one.event == "log"]
        expected = (b"\n".join(lines) + b"\n").split(b"\n")[:-1]
        assert shown == [line.decode("utf-8", "replace").removesuffix("\r") for line in expected]


@pytest.mark.parametrize("what", ["deleted", "cut", "empty", "a folder", "a pipe"])
async def test_a_log_that_is_gone_does_not_keep_followers(open_app, executor, what):
    """Somebody tidied up: the states are still told, and the stream ends."""
    async with open_app() as app:
        run = await finished(app, executor, b"".join(metric(step) for step in range(1, 30)))
        log = app.services.paths.run(run.id).folder / "run.log"
        content = log.read_bytes()
        log.unlink()
        if what in ("cut", "empty"):
            log.write_bytes(content[:100] if what == "cut" else b"")
        elif what != "deleted":
            log.mkdir() if what == "a folder" else os.mkfifo(log)
        sent = await everything(app, run.id)
        assert [one.data["state"] for one in sent if one.event == "state"][-1] == "succeeded"
        assert await everything(app, run.id, "70.3")
        page = read_log(log, offset=3, after_line=None, limit=10, ended=True)
        assert page.complete or what == "cut"


async def test_a_run_may_replace_its_own_log(open_app, executor):
    """A folder in the place of the log, or a log that was cut and written anew: the run's end is recorded all the same."""
    async with open_app() as app:
        runs = app.services.runs
        first = await new_run(app)
        await reached(app, first, "running")
        (app.services.paths.run(first).folder / "run.log").mkdir()
        executor.end(first)
        assert (await reached(app, first)).state is RunState.SUCCEEDED

        second = await new_run(app)
        await reached(app, second, "running")
        log = app.services.paths.run(second).folder / "run.log"
        log.write_bytes(b"".join(metric(step) for step in range(1, 20)))
        await eventually(lambda: runs.live.progress(runs.book.get(second)).step == 19)
        log.write_bytes(metric(20) + metric(21))
        await eventually(lambda: runs.live.progress(runs.book.get(second)).step == 21)
        executor.end(second)
        assert (await reached(app, second)).state is RunState.SUCCEEDED
        written = (app.services.paths.run(second).folder / "metrics.jsonl").read_bytes().splitlines()
        assert [json.loads(line)["step"] for line in written] == list(range(1, 22))


async def test_a_log_that_is_cut_under_a_later_server_loses_no_metric(open_app, executor):
    """Also when it was seen while it was empty: what is written from then on is new, however small its offsets are."""
    async with open_app() as app:
        run_id = await new_run(app)
        await reached(app, run_id, "running")
        log = app.services.paths.run(run_id).folder / "run.log"
        log.write_bytes(b"".join(metric(step) for step in range(1, 20)))
        await eventually(log.with_name("metrics.jsonl").exists)
    async with open_app() as app:
        runs = app.services.runs
        live = runs.live.get(runs.book.get(run_id))
        await eventually(lambda: live.progress.step == 19)
        log.write_bytes(b"")
        await eventually(lambda: live.offset == 0)
        log.write_bytes(metric(20) + metric(21))
        await eventually(lambda: live.progress.step == 21)
        executor.end(run_id)
        await reached(app, run_id)
        written = log.with_name("metrics.jsonl").read_bytes().splitlines()
        assert [json.loads(line)["step"] for line in written] == list(range(1, 22))


@pytest.mark.parametrize("notes", ["kept", "lost", "garbled", "half a metric", "zeros", "a wrong progress"])
async def test_a_new_server_goes_on_where_the_old_one_was(open_app, executor, notes):
    """Whatever became of the derived files: no metric is lost or repeated, and the progress is right."""
    async with open_app() as app:
        runs = app.services.runs
        run_id = await new_run(app)
        await reached(app, run_id, "running")
        folder = app.services.paths.run(run_id).folder
        (folder / "run.log").write_bytes(b"".join(metric(step) for step in range(1, 11)))
        await eventually(lambda: runs.live.progress(runs.book.get(run_id)).step == 10)
        await eventually((folder / "progress.json").exists)
    metrics, progress = folder / "metrics.jsonl", folder / "progress.json"
    if notes == "lost":
        metrics.unlink()
        progress.unlink()
    elif notes == "garbled":
        metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[:4]) + b"{garbled}\n")
    elif notes == "half a metric":
        metrics.write_bytes(metrics.read_bytes()[:-7])
    elif notes == "zeros":
        metrics.write_bytes(metrics.read_bytes()[:200] + b"\0" * 400)
        progress.write_bytes(b"\0" * 40)
    elif notes == "a wrong progress":
        progress.write_text('{"step": "ten"}')
    async with open_app() as app:
        runs = app.services.runs
        with (folder / "run.log").open("ab") as log:
            log.write(metric(11) + metric(12))
        executor.end(run_id)
        run = await reached(app, run_id)
        assert (run.state, run.progress.step) == (RunState.SUCCEEDED, 12)
        assert [json.loads(line)["step"] for line in metrics.read_bytes().splitlines()] == list(range(1, 13))
        assert [one.data["step"] for one in await everything(app, run_id) if one.event == "metrics"] == list(
            range(1, 13)
        )


async def test_a_metric_too_long_to_page_is_not_in_the_history(open_app, executor):
    """A line near the limit grows when it is written down: it stays in the log, and the history can be read."""
    async with open_app() as app:
        start = b'{"tunesmith":"metrics","step":2,"notes":[1'
        long = start + b",1" * ((LONGEST_LINE - len(start) - 2) // 2) + b"]}\n"
        await finished(app, executor, metric(1) + long + metric(3))
        run_id = executor.order[0]
        page = read_metrics(app.services.paths.run(run_id).folder / "metrics.jsonl", cursor=None, limit=10)
        assert [point["step"] for point in page.metrics] == [1, 3]


@pytest.mark.parametrize("text", ["x", "1", "1.", ".1", "1.x", "-1.0", "1.1.1", "1e3.0", " 1.1", "²³.1"])
def test_an_id_that_is_none_is_refused(text):
    """Starting from the beginning instead would repeat everything."""
    with pytest.raises(InvalidInput) as refused:
        Position.parse(text)
    assert refused.value.where == "Last-Event-ID"


@pytest.mark.parametrize("after", ["999999999999999999999.0", "0.99999", "999999999.99999", "3.0"])
async def test_an_id_of_another_run_ends_all_the_same(open_app, executor, after):
    """A made-up position shows less, and never hangs or fails."""
    async with open_app() as app:
        run = await finished(app, executor, metric(1) + metric(2))
        await everything(app, run.id, after)
