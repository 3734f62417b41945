"""What was trained is what is served: the same answers as transformers gives, token for token in float32, order for order when tuned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from real_parts import deployed
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.server import clean_environment
from tunesmith.demo import orders
from tunesmith_workers.cpu import decoder_for
from tunesmith_workers.engine.batch import NO_ADAPTER
from tunesmith_workers.engine.loading import load
from tunesmith_workers.engine.sampling import Chooser, Sampling
from tunesmith_workers.engine.scheduler import Answer, Scheduler

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
PROMPTS, TOKENS = 200, 12


@pytest.fixture(scope="module")
def prompts(real_model) -> list[list[int]]:
    """Conversations as the model's template renders them: orders, and questions of other kinds and lengths."""
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    rows = [row["messages"][:-1] for row in orders.held_out(PROMPTS // 2)]
    things = (
        "rain",
        "a violin",
        "the moon",
        "copper",
        "bread",
        "a lighthouse",
        "glass",
        "the sea",
        "a beehive",
        "chess",
    )
    asked = [f"Tell me about {thing} " + "and " * number for thing in things for number in range(PROMPTS // 20)]
    rows += [[{"role": "user", "content": text}] for text in asked]
    texts = [tokenizer.apply_chat_template(row, tokenize=False, add_generation_prompt=True) for row in rows]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


@torch.inference_mode()
def by_generate(model: Any, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return found[0, len(prompt) :].tolist()


def by_engine(backend: Any, prompts: list[list[int]], *, together: bool) -> list[list[int]]:
    scheduler = Scheduler(backend, prompt_tokens_per_step=256, most_guessed=4)
    answers = [
        Answer(prompt, Chooser(Sampling(temperature=0)), most=TOKENS, ends=frozenset(), adapter=NO_ADAPTER)
        for prompt in prompts
    ]
    for group in [answers] if together else [[answer] for answer in answers]:
        for answer in group:
            scheduler.add(answer)
        while not scheduler.idle:
            assert all(event.failure is None for event in scheduler.step())
    return [answer.said for answer in answers]


def test_greedy_tokens_are_those_of_generate(real_model, prompts):
    """Of 200 prompts, in float32: alone, and in a batch that others join and leave."""
    plain = AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32).eval()
    plain.generation_config.eos_token_id = None
    expected = [by_generate(plain, prompt) for prompt in prompts]
    del plain
    served = load(str(real_model), dtype="float32", slots=16, longest=512, accelerated=decoder_for)
    assert len(prompts) == PROMPTS
    assert by_engine(served.backend, prompts, together=True) == expected
    assert by_engine(served.backend, prompts, together=False) == expected


@pytest.fixture(scope="module")
def tuned(home, server) -> dict[str, Any]:
    """What the demo found, played on the server."""
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", "demo", "--json", "--recipes-dir", str(ROOT / "recipes")],
        cwd=home,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_a_tuned_model_is_as_good_in_every_engine(client, engine, tuned):
    """Orders that are exactly right, of 60: within one of what transformers made of them after the training."""
    rows = [row["messages"] for row in orders.held_out()]
    name = f"tuned-{engine}"
    found = deployed(client, engine, tuned["training_id"], name=name)
    assert found["parity"] == "ok"
    body = {"requests": [{"messages": row[:-1]} for row in rows], "model": name, "max_tokens": 64, "temperature": 0}
    answered = client.post("/api/inference/batch", json=body, timeout=900).raise_for_status().json()
    assert answered["failed"] == 0, answered["results"][0]
    said = [one["answer"]["message"]["content"].strip() for one in answered["results"]]
    right = sum(text == row[-1]["content"].strip() for text, row in zip(said, rows, strict=True))
    expected = round(tuned["after"]["exact_match"] * len(rows))
    assert abs(right - expected) <= 1, (right, expected)
    client.delete(f"/api/v1/deployments/{name}").raise_for_status()
