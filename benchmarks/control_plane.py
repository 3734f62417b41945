"""How fast the control plane is, beside a bare Litestar handler measured in the same go.

    python benchmarks/control_plane.py [throughput] [start] [events]

throughput  durable ``POST /v1/experiments`` and run status at 32 connections, each also as a share of a handler that
            does nothing but decode and encode, on the same server software with the same client. The two take turns,
            so that a machine whose speed drifts slows both.
start       seconds from starting the process to a healthy answer, and resident memory, with an empty state folder and
            with 100,000 finished runs in it.
events      milliseconds from a process printing a line to 200 followers receiving it.

Client and server share the machine: with 2 cores, each has about one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import uvloop

CONNECTIONS = 32
ROUNDS = 5
SECONDS = 2.0
FOLLOWERS = 200
RUNS = 100_000

BARE = """
import sys
import msgspec, uvicorn
from litestar import Litestar, get, post

class Body(msgspec.Struct):
    name: str
    task_type: str
    goal: str = ""
    tags: tuple[str, ...] = ()

@post("/bare")
async def create(data: Body) -> Body:
    return data

@get("/bare/{name:str}", sync_to_thread=False)
def show(name: str) -> Body:
    return Body(name=name, task_type="sft")

uvicorn.run(Litestar([create, show], openapi_config=None), port=int(sys.argv[1]), loop="uvloop", http="httptools",
            log_config=None, access_log=False, server_header=False)
"""

TOY_YAML = """# Prints stamped lines. Needs nothing. By hand: bash run.sh config.yaml
name: stamps
kind: train
summary: prints the time
data: []
resources: {gpus: 0, cpu: true}
config:
  training:
    lines: 100  # how many lines
"""
TOY_SH = """#!/usr/bin/env bash
# Prints a stamped line every 50 ms.
set -euo pipefail
exec "${TUNESMITH_PYTHON:-python}" -S -u -c '
import time
time.sleep(2)
for _ in range(100):
    print("stamp", time.time(), flush=True)
    time.sleep(0.05)
'
"""


class Connection(asyncio.Protocol):
    """One keep-alive connection that repeats a request as soon as it has the whole answer."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answers = 0
        self.bad = 0
        self.buffer = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data
        blank, length = data.find(b"\r\n\r\n"), data.find(b"content-length: ") + 16
        if blank < 0 or len(data) < blank + 4 + int(data[length : data.find(b"\r", length)]):
            self.buffer = data
            return
        self.buffer = b""
        self.answers += 1
        self.bad += data[9:11] != b"20"
        self.transport.write(self.request)


def request(method: str, port: int, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return (head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body


async def rate(port: int, content: bytes) -> float:
    """Answers per second over one round."""
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: Connection(content), "127.0.0.1", port) for _ in range(CONNECTIONS)]
    await asyncio.sleep(0.3)
    before, began = sum(c.answers for _, c in opened), time.perf_counter()
    await asyncio.sleep(SECONDS)
    answers, seconds = sum(c.answers for _, c in opened) - before, time.perf_counter() - began
    for transport, connection in opened:
        assert not connection.bad, "an answer was not 2xx"
        transport.abort()
    return answers / seconds


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def healthy(port: int, path: str) -> None:
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
            return
        except OSError:
            time.sleep(0.005)


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tunesmith", "serve", "--port", str(port), "--state-dir", "state"],
        cwd=folder,
        stderr=(folder / "server.log").open("ab"),
    )


def ask(port: int, method: str, path: str, body: object = None):
    content = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", content, headers, method=method)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def toy_recipe(folder: Path) -> None:
    recipe = folder / "recipes" / "stamps"
    recipe.mkdir(parents=True)
    (recipe / "recipe.yaml").write_text(TOY_YAML)
    (recipe / "run.sh").write_text(TOY_SH)


def stop(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        process.wait(20)


def throughput(folder: Path) -> None:
    toy_recipe(folder)
    ours, bare = free_port(), free_port()
    bare_server = subprocess.Popen([sys.executable, "-c", BARE, str(bare)])
    server = serve(folder, ours)
    healthy(ours, "/healthz")
    healthy(bare, "/bare/x")
    experiment = ask(ours, "POST", "/v1/experiments", {"name": "bench", "task_type": "stamps"})["id"]
    run = ask(ours, "POST", f"/v1/experiments/{experiment}/runs", {})["run_id"]
    body = json.dumps({"name": "bench", "task_type": "sft", "goal": "compare", "tags": ["a", "b"]}).encode()
    status_path = f"/v1/experiments/{experiment}/runs/{run}/status"
    asked = {
        "POST /v1/experiments (durable)": (ours, request("POST", ours, "/v1/experiments", body)),
        "POST to a bare handler": (bare, request("POST", bare, "/bare", body)),
        "GET run status": (ours, request("GET", ours, status_path)),
        "GET from a bare handler": (bare, request("GET", bare, "/bare/x")),
    }
    rates: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(ROUNDS):
        for name, (port, content) in asked.items():
            rates[name].append(uvloop.run(rate(port, content)))
    stop(server, bare_server)
    middle = {name: statistics.median(found) for name, found in rates.items()}
    for name, found in middle.items():
        print(f"{name:32} {found:8,.0f} per second   (of {ROUNDS}: {', '.join(f'{r:,.0f}' for r in rates[name])})")
    names = list(asked)
    for mine, its in ((names[0], names[1]), (names[2], names[3])):
        print(f"{mine:32} {middle[mine] / middle[its]:8.2f} of a bare handler")


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def start(folder: Path) -> None:
    for name, fill in (("empty state", False), (f"{RUNS:,} runs", True)):
        home = folder / ("full" if fill else "empty")
        home.mkdir()
        if fill:
            write_runs(home / "state")
            size = (home / "state" / "runs.jsonl").stat().st_size / 1e6
            print(f"(runs.jsonl: {size:,.0f} MB)")
        seconds, memory, page = [], [], []
        for _ in range(ROUNDS):
            port = free_port()
            began = time.perf_counter()
            server = serve(home, port)
            healthy(port, "/healthz")
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
            ask(port, "GET", "/v1/runs?limit=50")
            page.append(time.perf_counter() - began)
            memory.append(resident_mib(server.pid))
            stop(server)
        print(
            f"{name:16} healthy after {statistics.median(seconds):.2f} s (max {max(seconds):.2f}), "
            f"{statistics.median(memory):.0f} MiB resident, first page of runs {statistics.median(page) * 1000:.0f} ms"
        )


def write_runs(state: Path) -> None:
    """A runs journal as the server itself writes it: four changes for each run."""
    from tunesmith.app import open_services
    from tunesmith.records import DatasetReference, Exit, Progress, Run, RunKind, RunState, new_id, utc_now
    from tunesmith.settings import Settings

    app = open_services(Settings(state_dir=state))
    journal = app.journals[2]

    async def append(number: int) -> None:
        import msgspec

        run = Run(
            id=new_id("run"),
            kind=RunKind.TRAIN,
            recipe="lora",
            state=RunState.QUEUED,
            created_at=utc_now(),
            experiment_id=f"exp_{number % 1000:026d}",
            model="SmolLM2-135M-Instruct",
            dataset=DatasetReference(name="data/train.jsonl", path=str(state / "data" / "train.jsonl")),
            hyperparams={"learning_rate": 0.001, "num_train_epochs": 3},
            command=("bash", "recipes/lora/run.sh", f"state/runs/{number}/config.yaml"),
        )
        done = Progress(step=200, total_steps=200, epoch=3.0, metrics={"loss": 0.1, "eval_loss": 0.2})
        await journal.append("created", run)
        await journal.append("starting", msgspec.structs.replace(run, state=RunState.STARTING, attempt=1))
        running = msgspec.structs.replace(run, state=RunState.RUNNING, attempt=1, started_at=utc_now())
        await journal.append("running", running)
        ended = msgspec.structs.replace(
            running, state=RunState.SUCCEEDED, finished_at=utc_now(), exit=Exit(code=0), progress=done, log_bytes=9999
        )
        await journal.append("succeeded", ended)

    async def fill() -> None:
        for begin in range(0, RUNS, 500):
            await asyncio.gather(*(append(number) for number in range(begin, begin + 500)))
        for each in app.journals:
            await each.close()

    uvloop.run(fill())


def events(folder: Path) -> None:
    toy_recipe(folder)
    port = free_port()
    server = serve(folder, port)
    healthy(port, "/healthz")
    experiment = ask(port, "POST", "/v1/experiments", {"name": "bench", "task_type": "stamps"})["id"]
    run = ask(port, "POST", f"/v1/experiments/{experiment}/runs", {})["run_id"]
    delays = uvloop.run(follow_all(port, run))
    stop(server)
    delays.sort()
    print(
        f"line to {FOLLOWERS} followers: median {delays[len(delays) // 2] * 1000:.1f} ms, "
        f"p99 {delays[int(len(delays) * 0.99)] * 1000:.1f} ms, max {delays[-1] * 1000:.1f} ms ({len(delays):,} lines)"
    )


async def follow_all(port: int, run: str) -> list[float]:
    found = await asyncio.gather(*(follow(port, run) for _ in range(FOLLOWERS)))
    return [delay for delays in found for delay in delays]


async def follow(port: int, run: str) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /v1/runs/{run}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    delays = []
    while line := await reader.readline():
        if line.startswith(b'data: {"line":"stamp'):
            delays.append(time.time() - float(line.split(b"stamp ")[1].split(b'"')[0]))
    writer.close()
    assert len(delays) == 100, f"a follower got {len(delays)} of 100 lines"
    return delays


def main() -> None:
    parts = {"throughput": throughput, "start": start, "events": events}
    for name in sys.argv[1:] or parts:
        folder = Path(tempfile.mkdtemp(prefix="tunesmith-bench-", dir=os.environ.get("BENCH_DIR")))
        try:
            print(f"== {name}")
            parts[name](folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
