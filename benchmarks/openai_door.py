"""What the OpenAI-shaped door adds to 32 chats at once: `/v1/chat/completions` of the service beside the engine's own port.

    python benchmarks/openai_door.py --model FOLDER [--rounds N]

A real model is served by the built-in engine. Each side answers 32 conversations at once, whole and then as streams, of 64
tokens each; the time is from the first request to the last byte. Rounds of the two sides take turns, and the ratio is the
median over pairs of rounds: other work on the machine slows both. Exits with 1 where the door costs more than 5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parents[1] / "tests"),
    str(Path(__file__).parents[1] / "src"),
]

from proxy import ROOT, Connection, Side  # noqa: E402  # found beside this file

AT_ONCE, TOKENS = 32, 64
BAR = 1.05
"""Times of the engine's own time."""
PATH = "/v1/chat/completions"
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


async def round_of(side: Side, others: dict[str, Any]) -> float:
    """Seconds until all of them have their answer."""
    connections = [Connection(side.port) for _ in range(AT_ONCE)]

    async def one(number: int) -> None:
        messages = [{"role": "user", "content": f"Tell a short story about the number {number}."}]
        body = {**side.body, "messages": messages, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0, **others}
        answer = await connections[number].post(PATH, body)
        assert answer.status == 200, answer.body
        assert not others or answer.body.rstrip().endswith(b"data: [DONE]"), answer.body

    begun = time.perf_counter()
    await asyncio.gather(*map(one, range(AT_ONCE)))
    seconds = time.perf_counter() - begun
    for connection in connections:
        connection.close()
    return seconds


async def measure(engine: Side, door: Side, rounds: int) -> dict[str, float]:
    """How many times the engine's own time the door takes, at the median over pairs of rounds."""
    ratios = {}
    for what, others in (("whole", {}), ("streamed", STREAM)):
        times: dict[str, list[float]] = {engine.name: [], door.name: []}
        for number in range(rounds + 1):
            for side in (engine, door) if number % 2 else (door, engine):
                seconds = await round_of(side, others)
                if number:  # the first is for warming up
                    times[side.name].append(seconds)
        for name, found in times.items():
            print(f"{what:9} {name:7} {AT_ONCE} chats of {TOKENS} tokens: median {statistics.median(found):6.2f} s")
        ratios[what] = statistics.median(
            ours / own for own, ours in zip(times[engine.name], times[door.name], strict=True)
        )
        print(f"{what:9} the door takes {ratios[what]:.3f} times as long (bar: {BAR:g})")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=os.environ.get("TUNESMITH_TEST_MODEL"), help="a model's folder")
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    if options.model is None:
        sys.exit("name a model: --model FOLDER")
    from support.deployed import once, remove_all
    from support.server import ServerProcess

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "state" / "models").mkdir(parents=True)
        (place / "state" / "models" / "model").symlink_to(Path(options.model).resolve())
        env = {"CUDA_VISIBLE_DEVICES": "", "TUNESMITH_ALLOWED_ROOTS": f"{place}:{Path(options.model).resolve()}"}
        with ServerProcess.start(place / "state", ROOT / "recipes", env) as server, server.client() as client:
            try:
                request = {"model_path": "model", "engine": "transformers", "name": "asked"}
                client.post("/api/v1/deployments", json=request).raise_for_status()
                made = once(client, "asked", "running")
                engine = Side("engine", made["port"], PATH, PATH, {"model": made["served_models"][0]})
                door = Side("door", int(server.url.rpartition(":")[2]), PATH, PATH, {"model": "asked"})
                ratios = asyncio.run(measure(engine, door, options.rounds))
            finally:
                remove_all(client)
    sys.exit(any(ratio > BAR for ratio in ratios.values()))


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    main()
