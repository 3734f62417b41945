"""What the control plane adds to an answer: `/api/inference/chat` beside the engine's own port, in turns.

    python benchmarks/proxy.py [--rounds N]

A tiny random model is served by the built-in engine. Both sides are asked over one kept connection each, by the same client.

requests  milliseconds to a whole answer of one token, at the median and the 99th percentile.
streams   milliseconds for each chunk of a streamed answer, from the request to the last chunk.
crowd     200 streams at once through the control plane, each of which must end with its usage and [DONE].

Client, control plane and engine share the machine. Rounds of the two sides take turns, and the differences are medians over
pairs of rounds: other work on the machine slows both. Exits with 1 when a stream of the crowd failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "src")]

ROOT = Path(__file__).parents[1]
REQUESTS, STREAMS, STREAM_TOKENS = 40, 4, 64
CROWD, CROWD_TOKENS = 200, 32
BARS = {"request": 3.0, "chunk": 1.0}
"""Milliseconds that may be added at the median."""


class Answer(NamedTuple):
    """One answer: its status, when each part of its body came in seconds from the request, and the body."""

    status: int
    arrivals: list[float]
    body: bytes


class Side:
    """One way to the same model: an address and what the body says."""

    def __init__(self, name: str, port: int, whole: str, stream: str, body: dict[str, Any]) -> None:
        self.name, self.port, self.whole, self.stream, self.body = name, port, whole, stream, body
        self.times: list[float] = []
        self.chunk_times: list[float] = []


class Connection:
    """One kept connection that asks for one thing after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: dict[str, Any]) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        reader, writer = self._streams
        sent = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}"
        )
        begun = time.perf_counter()
        writer.write(f"{head}\r\n\r\n".encode() + sent)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        status = int(lines[0].split()[1])
        fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        if "content-length" in fields:
            content = await reader.readexactly(int(fields["content-length"]))
            return Answer(status, [time.perf_counter() - begun], content)
        arrivals, parts = [], []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
            arrivals.append(time.perf_counter() - begun)
        await reader.readexactly(2)
        return Answer(status, arrivals, b"".join(parts))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def round_of(side: Side, number: int) -> tuple[float, float]:
    """Median milliseconds of a request, and of a chunk."""
    connection = Connection(side.port)
    await connection.post(side.whole, {**side.body, "max_tokens": 1})  # the connection is made outside of what counts
    whole, chunks = [], []
    for _ in range(REQUESTS):
        answer = await connection.post(side.whole, {**side.body, "max_tokens": 1})
        assert answer.status == 200, answer.body
        whole.append(answer.arrivals[-1] * 1000)
    for _ in range(STREAMS):
        options = {} if "/api/" in side.stream else {"stream": True, "stream_options": {"include_usage": True}}
        answer = await connection.post(side.stream, {**side.body, "max_tokens": STREAM_TOKENS, **options})
        assert answer.body.rstrip().endswith(b"[DONE]"), answer.body
        chunks.append(answer.arrivals[-1] * 1000 / answer.body.count(b"data: "))
    connection.close()
    if number:  # the first is for warming up
        side.times += whole
        side.chunk_times += chunks
    return statistics.median(whole), statistics.median(chunks)


async def in_turns(sides: list[Side], rounds: int) -> dict[str, float]:
    """What the second side adds to the first, at the median over pairs of rounds."""
    added: dict[str, list[float]] = {"request": [], "chunk": []}
    for number in range(rounds + 1):
        turn = sides if number % 2 else sides[::-1]
        found = {side.name: await round_of(side, number) for side in turn}
        if number:
            for place, what in enumerate(added):
                added[what].append(found[sides[1].name][place] - found[sides[0].name][place])
    return {what: statistics.median(differences) for what, differences in added.items()}


async def crowd(side: Side) -> tuple[int, float]:
    """How many of the streams failed, and how long all of them took."""

    async def one(number: int) -> bool:
        connection = Connection(side.port)
        messages = [{"role": "user", "content": f"number {number}"}]
        try:
            answer = await connection.post(side.stream, {**side.body, "messages": messages, "max_tokens": CROWD_TOKENS})
        except (OSError, asyncio.IncompleteReadError, ValueError):
            return False
        finally:
            connection.close()
        return answer.status == 200 and b'"usage"' in answer.body and answer.body.rstrip().endswith(b"[DONE]")

    begun = time.perf_counter()
    ended = await asyncio.gather(*(one(number) for number in range(CROWD)))
    return ended.count(False), time.perf_counter() - begun


def report(sides: list[Side], added: dict[str, float]) -> None:
    for what, of in (("request", "times"), ("chunk", "chunk_times")):
        for side in sides:
            cuts = statistics.quantiles(getattr(side, of), n=100)
            print(f"{what:8} {side.name:14} p50 {cuts[49]:7.2f} ms   p99 {cuts[98]:7.2f} ms")
        print(f"{what:8} added at the median: {added[what]:.2f} ms (bar: {BARS[what]:g} ms)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    from support.deployed import once, remove_all
    from support.server import ServerProcess
    from support.tiny_model import save_tiny_model, tiny_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        save_tiny_model(place / "state" / "models" / "tiny", tiny_tokenizer())
        env = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with ServerProcess.start(place / "state", ROOT / "recipes", env) as server, server.client() as client:
            try:
                request = {"model_path": "tiny", "engine": "transformers", "name": "proxied"}
                client.post("/api/v1/deployments", json=request).raise_for_status()
                made = once(client, "proxied", "running")
                failed = asyncio.run(measure(made, int(server.url.rpartition(":")[2]), rounds))
            finally:
                remove_all(client)
    sys.exit(failed > 0)


async def measure(made: dict[str, Any], port: int, rounds: int) -> int:
    said = {"messages": [{"role": "user", "content": "the colour of grass?"}], "temperature": 0}
    completions = "/v1/chat/completions"
    engine = Side("engine", made["port"], completions, completions, {**said, "model": made["served_models"][0]})
    chat = "/api/inference/chat"
    ours = Side("control plane", port, chat, f"{chat}/stream", {**said, "model": "proxied"})
    report([engine, ours], await in_turns([engine, ours], rounds))
    failed, seconds = await crowd(ours)
    print(f"crowd    {CROWD} streams at once: {CROWD - failed} whole, {failed} failed, {seconds:.1f} s")
    return failed


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    main()
