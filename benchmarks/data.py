"""How fast data files are validated and processed, and in how much memory, beside ``datasets.load_dataset`` with a check.

    python benchmarks/data.py [--megabytes 400] [--gigabytes N] [--rounds 3] [--folder DIR] [--shape messages] [--alone]

Writes a file of valid rows (about 900 bytes each; ``messages``, or with ``--shape`` another shape, which the rival does not
read) and then, in turns: validates it, processes it (80/10/10, shuffled), and, unless ``--alone``, loads it with ``datasets`` and checks the same things in plain Python, once without and
once with writing such a split. Each runs in a process of its own, whose processor time and peak memory the system counts;
the best round counts. MB/s per core is bytes by processor time, user and system. At last, a live service validates the file
while its health is asked for all the time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

TEXT = (
    "the model answers every question about orders shipping refunds and returns in plain words so that customers know"
)
WORDS = [*TEXT.split(), "what", "happens", "next", "when", "it", "will", "arrive"]

SHAPES = {
    "messages": lambda system, question, answer: {
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    },
    "sharegpt": lambda *texts: {
        "conversations": [
            {"from": name, "value": text} for name, text in zip(("system", "human", "gpt"), texts, strict=True)
        ]
    },
    "instruction": lambda _, question, answer: {"instruction": question, "input": "", "output": answer},
    "prompt_completion": lambda _, question, answer: {"prompt": question, "completion": answer},
    "preference": lambda _, question, answer: {"prompt": question, "chosen": answer, "rejected": answer[::-1]},
}

# The parent must be small: a child is charged with the memory of the process that it began as.
MEASURE = """
import json, os, subprocess, sys, time
began = time.perf_counter()
child = subprocess.Popen(json.loads(sys.argv[1]), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdin.write(sys.argv[2].encode() + b"\\n")
child.stdin.flush()
said = child.stdout.read()
_, status, usage = os.wait4(child.pid, 0)
child.returncode = os.waitstatus_to_exitcode(status)
print(json.dumps({
    "wall": time.perf_counter() - began, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * 1024,
    "code": child.returncode, "said": said.decode().splitlines()[-1:],
}))
"""

# What a careful person writes when there is no Tunesmith: the same faults, the same counts.
RIVAL = """
import json, sys
from collections import Counter
from datasets import load_dataset
request = json.loads(sys.stdin.readline())
rows = load_dataset("json", data_files=request["file"], split="train", cache_dir=request["cache"])
roles, lengths, seen, bad = Counter(), Counter(), set(), 0
for row in rows:
    messages = row["messages"]
    if not messages or not any(message["role"] == "assistant" for message in messages):
        bad += 1
        continue
    total = 0
    for message in messages:
        role, content = message["role"], message["content"]
        if role not in ("system", "user", "assistant", "tool") or not isinstance(content, str) or not content.strip():
            bad += 1
            break
        roles[role] += 1
        total += len(content)
    lengths[total.bit_length()] += 1
    seen.add(hash(tuple((message["role"], message["content"]) for message in messages)))
print(json.dumps({"rows": len(rows), "bad": bad, "duplicates": len(rows) - len(seen), "roles": roles}))
"""


# And what they write to get the three files: the same rows, dealt at random by a seed. Nothing is hashed.
RIVAL_SPLIT = (
    RIVAL
    + """
first = rows.train_test_split(test_size=0.2, seed=42)
second = first["test"].train_test_split(test_size=0.5, seed=42)
for name, part in (("train", first["train"]), ("val", second["train"]), ("test", second["test"])):
    part.to_json(f"{request['out']}/{name}.json")
"""
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures validating and processing.")
    parser.add_argument("--megabytes", type=float, default=400)
    parser.add_argument("--gigabytes", type=float)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    parser.add_argument("--shape", choices=SHAPES, default="messages")
    parser.add_argument("--alone", action="store_true", help="without the rival")
    asked = parser.parse_args()
    asked.alone = asked.alone or asked.shape != "messages"
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        path = folder / "rows.jsonl"
        size = int((asked.gigabytes * 1e9) if asked.gigabytes else asked.megabytes * 1e6)
        rows = write_rows(path, size, SHAPES[asked.shape])
        size = path.stat().st_size
        print(f"{rows:,} rows, {size / 1e6:,.0f} MB, {size / rows:.0f} bytes each", flush=True)
        found = measure_all(path, folder, asked)
        for label, rounds in found.items():
            report(label, rounds, size)
        if not asked.alone:
            best = {label: min(one["cpu"] for one in rounds) for label, rounds in found.items()}
            for ours, theirs in (("validate", "rival"), ("process", "rival"), ("process", "rival, splitting")):
                print(f"{ours} is {best[theirs] / best[ours]:.1f} times as fast as {theirs}")
        stalls(path, folder)


def write_rows(path: Path, size: int, row) -> int:
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(8, 60))) for _ in range(5000)]
    longer = [" ".join(rng.choices(WORDS, k=rng.randint(20, 150))) + ".\n" for _ in range(5000)]
    written = count = 0
    with path.open("w") as file:
        while written < size:
            for question, answer in zip(rng.choices(texts, k=1000), rng.choices(longer, k=1000), strict=True):
                said = "You are a helpful assistant.", f"{question} #{count}?", f"{answer}{count}"
                written += file.write(json.dumps(row(*said)) + "\n")
                count += 1
    return count


def measure_all(path: Path, folder: Path, asked: argparse.Namespace) -> dict[str, list[dict]]:
    out = folder / "out"
    python = sys.executable
    kinds = {
        "validate": ([python, "-m", "tunesmith_workers.data.validate"], {"file": str(path), "scratch": str(folder)}),
        "process": (
            [python, "-m", "tunesmith_workers.data.process"],
            {"input_file": str(path), "output_dir": str(out), "ratios": [0.8, 0.1, 0.1]},
        ),
    }
    if not asked.alone:
        (folder / "rival").mkdir()
        request = {"file": str(path), "out": str(folder / "rival")}
        kinds |= {
            "rival": ([python, "-c", RIVAL], request),
            "rival, splitting": ([python, "-c", RIVAL_SPLIT], request),
        }
    found: dict[str, list[dict]] = {label: [] for label in kinds}
    for number in range(asked.rounds):
        for label, (command, request) in kinds.items():
            # A fresh cache: the second time, the rival would only look at the work of the first.
            fresh = {"cache": str(folder / f"cache {label} {number}")} if label.startswith("rival") else {}
            done = subprocess.run(
                [python, "-c", MEASURE, json.dumps(command), json.dumps(request | fresh)],
                check=True,
                capture_output=True,
            )
            one = json.loads(done.stdout)
            if one["code"]:
                raise SystemExit(f"{label} failed: {done.stderr.decode()[-2000:]}")
            found[label].append(one)
    return found


def report(label: str, rounds: list[dict], size: int) -> None:
    best, fastest = min(one["cpu"] for one in rounds), min(one["wall"] for one in rounds)
    peak = max(one["peak"] for one in rounds)
    print(
        f"{label:16} {size / 1e6 / best:7.0f} MB/s per core, {size / 1e6 / fastest:6.0f} MB/s as the clock says, "
        f"peak {peak / 1e6:5.0f} MB of memory ({len(rounds)} rounds)",
        flush=True,
    )


def stalls(path: Path, folder: Path) -> None:
    """The longest that health takes while the service validates the file, and while it does nothing."""
    port_file, recipes = folder / "server.log", folder / "recipes"
    recipes.mkdir()
    with port_file.open("wb") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "tunesmith", "serve", "--port", "0"),
                *("--state-dir", str(folder / "state"), "--recipes-dir", str(recipes)),
            ],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if not name.startswith("TUNESMITH_")},
        )
    try:
        url = address(folder / "state/lock")
        idle = pings(url, lambda: time.sleep(3))
        query = urllib.parse.urlencode({"file_path": str(path)})
        busy = pings(url, lambda: ask(f"{url}/api/data/validate?{query}", method="POST"))
        for label, delays in (("idle", idle), ("validating", busy)):
            delays.sort()
            print(
                f"health while {label}: {len(delays)} answers, p50 {delays[len(delays) // 2] * 1000:.1f} ms, "
                f"p99 {delays[int(len(delays) * 0.99)] * 1000:.1f} ms, longest {delays[-1] * 1000:.1f} ms"
            )
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def address(lock: Path) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            url = json.loads(lock.read_text())["address"]
            ask(f"{url}/healthz")
            return url
        except (OSError, ValueError, KeyError):
            time.sleep(0.05)
    raise SystemExit("the service did not start")


def pings(url: str, meanwhile) -> list[float]:
    delays: list[float] = []
    done = threading.Event()

    def ping() -> None:
        while not done.wait(0.01):
            began = time.perf_counter()
            ask(f"{url}/healthz")
            delays.append(time.perf_counter() - began)

    thread = threading.Thread(target=ping)
    thread.start()
    try:
        meanwhile()
    finally:
        done.set()
        thread.join()
    return delays


def ask(url: str, method: str = "GET") -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, method=method), timeout=3600) as answer:
        return answer.read()


if __name__ == "__main__":
    main()
