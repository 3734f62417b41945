"""What the engine's tests share: models of random weights, an engine in this process, and one over HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import torch

from tunesmith_workers.cpu import decoder_for
from tunesmith_workers.engine.batch import NO_ADAPTER
from tunesmith_workers.engine.loading import Loaded, load
from tunesmith_workers.engine.sampling import Chooser, Sampling
from tunesmith_workers.engine.scheduler import Answer, Scheduler

GREEDY = Sampling(temperature=0)


def loaded(folder: Path, *, slots: int = 4, longest: int = 128, accelerated: bool = True) -> Loaded:
    fast = {"accelerated": decoder_for} if accelerated else {}
    return load(str(folder), dtype="float32", slots=slots, longest=longest, **fast)


def some_prompts(count: int, vocabulary: int, *, shared: int = 0) -> list[list[int]]:
    """Token ids of lengths between 1 and 40, after ``shared`` ones that all begin with."""
    random = torch.Generator().manual_seed(7)

    def ids(length: int) -> list[int]:
        return torch.randint(3, vocabulary, (length,), generator=random).tolist()

    beginning = ids(shared)
    return [beginning + ids(1 + 7 * number % 40) for number in range(count)]


def answer(
    prompt: Sequence[int], *, most: int = 12, sampling: Sampling = GREEDY, adapter: int = NO_ADAPTER, **others
) -> Answer:
    others.setdefault("ends", frozenset())
    return Answer(prompt, Chooser(sampling), most=most, adapter=adapter, **others)


def finish(scheduler: Scheduler, answers: Sequence[Answer]) -> None:
    """Compute until all of them are whole."""
    waiting = {id(one) for one in answers}
    while waiting:
        for event in scheduler.step():
            assert event.failure is None, event.failure
            if event.finish is not None:
                waiting.discard(id(event.answer))


def answers_to(
    scheduler: Scheduler, prompts: Sequence[Sequence[int]], *, adapters: Sequence[int] = (), **options
) -> list[list[int]]:
    """What comes after each prompt, all of them asked at once."""
    made = [
        answer(prompt, adapter=adapters[number] if adapters else NO_ADAPTER, **options)
        for number, prompt in enumerate(prompts)
    ]
    for one in made:
        scheduler.add(one)
    finish(scheduler, made)
    return [one.said for one in made]


@torch.inference_mode()
def generated(model: Any, prompt: Sequence[int], most: int = 12) -> list[int]:
    """The same by transformers, one prompt at a time."""
    for forced in (
        "eos_token_id",
        "forced_eos_token_id",
        "forced_bos_token_id",
        "suppress_tokens",
        "begin_suppress_tokens",
    ):
        setattr(model.generation_config, forced, None)
    ids = torch.tensor([prompt])
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=most,
        eos_token_id=None,
        do_sample=False,
        num_beams=1,
        pad_token_id=0,
    )
    return found[0, len(prompt) :].tolist()


class Served:
    """An engine in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
        self.process, self.client, self.log = process, client, log

    def chat(self, text: str = "the colour of grass?", **fields) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0} | fields
        return self.client.post(
            "/v1/chat/completions", json={name: value for name, value in body.items() if value is not None}
        )

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """While it does nothing at all."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def until(self, condition) -> dict[str, Any]:
        """Health, once the condition holds of it."""
        deadline = time.monotonic() + 20
        while True:
            health = self.client.get("/health").json()
            if condition(health):
                return health
            assert time.monotonic() < deadline, health
            time.sleep(0.02)


@contextlib.contextmanager
def serving(folder: Path, log: Path, *options: str) -> Iterator[Served]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tunesmith_workers.programs.serve", "--model", str(folder), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--served-model-name", "tiny", "--dtype", "float32", *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
    try:
        deadline = time.monotonic() + 90
        while True:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/health").is_success:
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield Served(process, client, log)
    finally:
        client.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
