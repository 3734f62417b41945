"""Chats answered side by side: the built-in engine, vLLM where there is one, and plain ``generate``, on the same model.

python benchmarks/serve.py [--model FOLDER] [--vllm-python PYTHON] [--rounds N]

Each server is warmed up, and asked by 1 and by 16 clients at once, streaming, every answer 96 tokens long. The rounds of the servers
take turns; while one is measured, the other is stopped. Printed are tokens per second, time to the first token, memory, and ratios. ``generate`` is
asked one prompt at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

TOKENS = 96
CLIENTS = 16
THINGS = ("a river", "the moon", "bread", "a violin", "copper", "the sea", "a lighthouse", "rain", "a beehive", "glass")


class Round(NamedTuple):
    """What one round came to."""

    tokens_per_second: float
    first_tokens: list[float]
    """Seconds to the first token, of each answer."""


def prompts(count: int, start: int) -> list[str]:
    return [
        f"Tell me about {THINGS[i % len(THINGS)]} in {1900 + start + i}, and why it mattered." for i in range(count)
    ]


class Server:
    """A server of ours or of vLLM, started for the whole benchmark."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.name, self.rounds = name, {1: [], CLIENTS: []}
        self.log = Path(f"/tmp/benchmark-{name}.log")
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)],
            env={**os.environ, **environment},
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self) -> float:
        """Until it is healthy; the seconds it took."""
        begun = time.monotonic()
        while time.monotonic() - begun < 300:
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2).read()
                return time.monotonic() - begun
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{self.name} did not start:\n{self.log.read_text()[-2000:]}")

    def memory(self) -> int:
        """Bytes that its processes hold; what they share counts once."""
        session, total = self.process.pid, 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    lines = (folder / "smaps_rollup").read_text().splitlines()
                    total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
            except OSError:
                continue
        return total

    def pause(self) -> None:
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self.go_on()
        os.killpg(self.process.pid, 15)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)

    async def ask(self, prompt: str) -> tuple[float, int]:
        """Stream one answer over a connection of its own: seconds to the first token, tokens."""
        body = json.dumps(
            {
                "model": "small",
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": TOKENS,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        begun = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        writer.write(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        first, tail = 0.0, b""
        while chunk := await reader.read(65536):
            if not first and b'"content":"' in chunk.replace(b'"content":""', b""):
                first = time.perf_counter() - begun
            tail = (tail + chunk)[-2000:]
        writer.close()
        assert b"[DONE]" in tail, tail
        tokens = int(tail.rpartition(b'"completion_tokens":')[2].split(b",")[0].split(b"}")[0])
        return first, tokens

    async def round(self, clients: int, answers: int, start: int) -> Round:
        waiting = prompts(answers, start)
        found: list[tuple[float, int]] = []

        async def client() -> None:
            while waiting:
                found.append(await self.ask(waiting.pop(0)))

        begun = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        seconds = time.perf_counter() - begun
        return Round(sum(tokens for _, tokens in found) / seconds, [first for first, _ in found])


def one_by_one(model: str) -> float:
    """Tokens per second of plain ``generate`` in bfloat16, one prompt at a time, in a process of its own."""
    script = f"""
import time, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({model!r})
model = AutoModelForCausalLM.from_pretrained({model!r}, dtype=torch.bfloat16).eval()
def ask(text):
    ids = tokenizer.apply_chat_template([{{"role": "user", "content": text}}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    return model.generate(**ids, max_new_tokens={TOKENS}, min_new_tokens={TOKENS}, do_sample=False)
with torch.inference_mode():
    ask("warm up")
    begun = time.perf_counter()
    for text in {prompts(4, 500)!r}:
        ask(text)
    print(4 * {TOKENS} / (time.perf_counter() - begun))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="state/models/SmolLM2-135M-Instruct")
    parser.add_argument("--vllm-python", help="an interpreter with vLLM, such as that of `nox -s vllm_venv`")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = str(Path(arguments.model).resolve())
    named = ["--model", model, "--served-model-name", "small", "--max-model-len", "1024", "--dtype", "bfloat16"]
    servers = [Server("built-in", [sys.executable, "-m", "tunesmith_workers.programs.serve", *named], {})]
    if arguments.vllm_python:
        command = [arguments.vllm_python, "-m", "vllm.entrypoints.openai.api_server", *named, "--enforce-eager"]
        servers.append(Server("vllm", command, {"VLLM_CPU_KVCACHE_SPACE": "1"}))
    try:
        for server in servers:
            print(f"{server.name}: healthy after {server.wait():.1f} s", flush=True)
        measure(servers, arguments.rounds)
        memory = {server.name: server.memory() for server in servers}
    finally:
        for server in servers:
            server.stop()
    report(servers, memory, one_by_one(model))


def measure(servers: list[Server], rounds: int) -> None:
    for server in servers:
        asyncio.run(server.round(4, 8, 0))
        server.pause()
    for number in range(rounds):
        for clients, answers in ((1, 4), (CLIENTS, 3 * CLIENTS)):
            for server in servers:
                server.go_on()
                server.rounds[clients].append(asyncio.run(server.round(clients, answers, 10 + 100 * number)))
                server.pause()
    for server in servers:
        server.go_on()


def report(servers: list[Server], memory: dict[str, int], plain: float) -> None:
    speed = {}
    first = {}
    for server in servers:
        for clients, found in server.rounds.items():
            speed[server.name, clients] = statistics.median(one.tokens_per_second for one in found)
            first[server.name, clients] = statistics.median(seconds for one in found for seconds in one.first_tokens)
            print(
                f"{server.name:9} {clients:2} at once: {speed[server.name, clients]:6.1f} tokens/s, "
                f"first token after {first[server.name, clients] * 1000:.0f} ms (median)"
            )
        print(f"{server.name:9} memory: {memory[server.name] / 2**20:.0f} MiB")
    print(f"generate, one by one: {plain:.1f} tokens/s")
    print(f"built-in at {CLIENTS} / generate one by one: {speed['built-in', CLIENTS] / plain:.2f}")
    if len(servers) > 1:
        for clients in (1, CLIENTS):
            print(f"built-in / vLLM at {clients}: {speed['built-in', clients] / speed['vllm', clients]:.2f}")
            print(
                f"first token, built-in / vLLM at {clients}: {first['built-in', clients] / first['vllm', clients]:.2f}"
            )
        print(f"memory, built-in / vLLM: {memory['built-in'] / memory['vllm']:.2f}")


if __name__ == "__main__":
    main()
