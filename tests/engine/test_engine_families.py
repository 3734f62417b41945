"""Every family of causal language models that transformers knows is served right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from serving_parts import answers_to, generated, some_prompts

from support import families
from tunesmith_workers.cpu import decoder_for
from tunesmith_workers.engine.adapters import AdapterBank
from tunesmith_workers.engine.loading import backend_for
from tunesmith_workers.engine.scheduler import Scheduler

pytestmark = [pytest.mark.torture, pytest.mark.filterwarnings("ignore")]


@torch.inference_mode()
def by_hand(model: Any, prompt: list[int], most: int) -> list[int]:
    """What the model says when it is given the whole sequence each time."""
    tokens = list(prompt)
    for _ in range(most):
        tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("family", families.EVERY)
def test_every_family_is_served_right(family):
    """As ``generate`` answers; where that differs from the model itself, as the model does."""
    if fault := families.fails(family):
        pytest.skip(fault)
    plain, model = families.model_of(family).eval(), families.model_of(family).eval()
    prompts = some_prompts(7, 120)
    try:
        expected = [by_hand(plain, prompt, 6) for prompt in prompts]
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        pytest.skip(f"the model cannot answer by itself: {type(error).__name__}: {error}")
    backend = backend_for(model, AdapterBank(), 3, 64, decoder_for)
    found = answers_to(Scheduler(backend, prompt_tokens_per_step=16, most_guessed=4), prompts, most=6)
    if found != expected:
        expected = [generated(plain, prompt, 6) for prompt in prompts]
    assert found == expected, type(backend).__name__
