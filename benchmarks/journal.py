"""What the journal costs: appends with and without group commit, and replaying a long history.

Run it as ``python benchmarks/journal.py [folder]``; the folder should be on the disk that is to be measured. It prints
numbers and ratios, and passes or fails nothing.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvloop

from tunesmith.journal import LOCAL_DISK, Journal
from tunesmith.journal.lines import encode, encode_body, finish_line
from tunesmith.records import Dataset, Experiment, ProcessIdentity, Progress, Run, RunKind, RunState, new_id

APPENDERS = 32
APPENDS = 64_000
RUNS = 100_000
STATES = (RunState.QUEUED, RunState.STARTING, RunState.RUNNING, RunState.SUCCEEDED)
AT = datetime(2026, 11, 20, 18, 1, 25, 673394, tzinfo=UTC)


class RunSummary(msgspec.Struct, frozen=True):
    """About what a list of runs needs."""

    id: str
    kind: RunKind
    recipe: str
    state: RunState
    created_at: datetime
    experiment_id: str | None = None
    priority: int = 0


class ExperimentSummary(msgspec.Struct, frozen=True):
    """About what a list of experiments needs."""

    id: str
    name: str
    created_at: datetime
    owner: str = ""
    tags: tuple[str, ...] = ()


class CountingDisk:
    """The real disk, with the number of syncs."""

    def __init__(self) -> None:
        self.syncs = 0
        self.write = LOCAL_DISK.write
        self.cut = LOCAL_DISK.cut

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        LOCAL_DISK.sync(descriptor)


def main() -> None:
    if sys.argv[1:2] == ["--replay"]:
        report_replay(Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder = Path(name)
        measure_appends(folder)
        for pattern in ("each run's lines together", "each state's lines together"):
            path = folder / "runs.jsonl"
            write_history(path, together=pattern.startswith("each run"))
            print(f"replay of {RUNS:,} runs x {len(STATES)} events, {path.stat().st_size / 1e6:.0f} MB, {pattern}:")
            subprocess.run([sys.executable, __file__, "--replay", str(path)], check=True)


def measure_appends(folder: Path) -> None:
    alone = one_fsync_per_record(folder / "alone.jsonl")
    print(f"one write and one fsync per record, no event loop: {alone:8,.0f} appends/s")
    single = timed(asyncio.run, group_commit(folder / "one.jsonl", 1, APPENDS // 16, CountingDisk()))
    print(f"journal, 1 appender: {APPENDS // 16 / single:8,.0f} appends/s")
    for name, run in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
        disk = CountingDisk()
        rate = APPENDS / timed(run, group_commit(folder / f"{name}.jsonl", APPENDERS, APPENDS, disk))
        print(
            f"journal, {APPENDERS} appenders, {name:7}: {rate:8,.0f} appends/s = {rate / alone:.1f} x one by one"
            f", {APPENDS / disk.syncs:.1f} records per fsync"
        )


def timed(run, work: Coroutine[None, None, None]) -> float:
    started = time.perf_counter()
    run(work)
    return time.perf_counter() - started


def one_fsync_per_record(path: Path) -> float:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    count = APPENDS // 16
    started = time.perf_counter()
    for number in range(1, count + 1):
        record = an_experiment(number)
        os.write(descriptor, finish_line(number, encode_body(AT, "created", record.id, encode(record))))
        os.fdatasync(descriptor)
    seconds = time.perf_counter() - started
    os.close(descriptor)
    return count / seconds


async def group_commit(path: Path, appenders: int, appends: int, disk: CountingDisk) -> None:
    journal = Journal.open(path, Experiment, ExperimentSummary, disk=disk)

    async def keep_appending(first: int) -> None:
        for number in range(first, appends, appenders):
            await journal.append("created", an_experiment(number))

    await asyncio.gather(*(keep_appending(first) for first in range(appenders)))
    await journal.close()


def an_experiment(number: int) -> Experiment:
    return Experiment(
        id=new_id("exp"),
        name=f"orders {number}",
        task_type="lora",
        created_at=AT,
        goal="one-line orders to JSON",
        base_model="SmolLM2-135M-Instruct",
        param_config={"learning_rate": 1e-3, "max_steps": 80},
        tags=("demo", "orders"),
    )


def write_history(path: Path, *, together: bool) -> None:
    runs = [a_run() for _ in range(RUNS)]
    changes = (
        ((run, state) for run in runs for state in STATES)
        if together
        else ((run, state) for state in STATES for run in runs)
    )
    with path.open("wb") as file:
        for seq, (run, state) in enumerate(changes, start=1):
            data = encode(msgspec.structs.replace(run, state=state))
            file.write(finish_line(seq, encode_body(AT, state.value, run.id, data)))


def a_run() -> Run:
    run_id = new_id("run")
    return Run(
        id=run_id,
        kind=RunKind.TRAIN,
        recipe="lora",
        state=RunState.QUEUED,
        created_at=AT,
        experiment_id=new_id("exp"),
        model="state/models/SmolLM2-135M-Instruct",
        dataset=Dataset(name="orders", path="state/demo/orders.train.jsonl"),
        hyperparams={"learning_rate": 1e-3, "max_steps": 80, "r": 16, "lora_alpha": 32},
        notes="a first try with a larger rank, to see whether the sixth key is learned as fast as the others",
        seed=7,
        command=("bash", "recipes/lora/run.sh", f"state/runs/{run_id}/config.yaml"),
        attempt=1,
        process=ProcessIdentity(pid=4711, start_ticks=123_456, boot_id="0d8f8a36-52f5-4e1c-9a3f-3f1c6f1e7a55"),
        progress=Progress(step=80, total_steps=80, epoch=2.5, metrics={"loss": 0.0021}, log_offset=65_536),
    )


def report_replay(path: Path) -> None:
    before = resident()
    cpu, started = time.process_time(), time.perf_counter()
    journal = Journal.open(path, Run, RunSummary)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(
        f"  {seconds:.2f} s ({cpu:.2f} s of CPU), {path.stat().st_size / 1e6 / seconds:.0f} MB/s,"
        f" {len(journal):,} ids; {resident() - before:.0f} MB more resident memory ({resident():.0f} MB in all)"
    )


def resident() -> float:
    """Megabytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


if __name__ == "__main__":
    main()
