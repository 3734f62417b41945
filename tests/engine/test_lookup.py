"""What is guessed is kept only where it is what would have been said: answers are the same, in fewer steps."""

from __future__ import annotations

import pytest
from serving_parts import GREEDY, answer, answers_to, finish, generated, loaded, some_prompts
from transformers import AutoModelForCausalLM

from tunesmith_workers.engine.adapters import read_adapter
from tunesmith_workers.engine.lookup import Lookup
from tunesmith_workers.engine.sampling import Sampling
from tunesmith_workers.engine.scheduler import Scheduler


def test_what_came_before_is_guessed_again():
    lookup = Lookup([1, 2, 3, 4, 5, 9, 1, 2, 3])
    assert lookup.guess(3) == [4, 5, 9]
    lookup.extend([4])
    assert lookup.guess(2) == [5, 9]
    lookup.extend([7])
    assert lookup.guess(4) == []


def test_the_latest_of_several_places_is_taken():
    assert Lookup([1, 2, 3, 8, 1, 2, 3, 9, 1, 2, 3]).guess(1) == [9]


def test_wrong_guesses_become_rare_and_never_stop():
    lookup = Lookup([1, 2, 3, 4, 1, 2, 3])
    tried = []
    for _ in range(200):
        guessed = lookup.guess(1)
        tried.append(bool(guessed))
        if guessed:
            lookup.learn(0, len(guessed))
    assert all(tried[:5])
    assert sum(tried[100:]) < 50
    assert any(tried[150:])


@pytest.mark.parametrize("accelerated", [True, False], ids=["accelerated", "packed"])
@pytest.mark.parametrize("slots", [1, 3])
def test_answers_with_guesses_are_those_of_generate(tiny_model, accelerated, slots):
    served = loaded(tiny_model, slots=slots, accelerated=accelerated)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    repeated = [[*ids, *ids, *ids[:2]] for ids in some_prompts(12, 300, shared=2)]
    scheduler = Scheduler(served.backend, prompt_tokens_per_step=64, most_guessed=6)
    assert answers_to(scheduler, repeated, most=40) == [generated(plain, prompt, 40) for prompt in repeated]


def test_guesses_save_steps(tiny_model):
    """One that knows four words soon goes round in circles."""
    four = Sampling(temperature=0, logit_bias=dict.fromkeys(range(65, 69), 100.0))
    taken = []
    for most_guessed in (0, 4):
        served = loaded(tiny_model)
        step, steps = served.backend.step, [0]

        def counting(pieces, step=step, steps=steps):
            steps[0] += 1
            return step(pieces)

        served.backend.step = counting
        scheduler = Scheduler(served.backend, prompt_tokens_per_step=64, most_guessed=most_guessed)
        answers_to(scheduler, [[5, 6, 7]], most=100, sampling=four)
        taken.append(steps[0])
    assert taken[0] == 100
    assert taken[1] < 60


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=3, temperature=0.7),
        Sampling(seed=3, temperature=1.3, top_p=0.8),
        Sampling(temperature=0, frequency_penalty=1.0, presence_penalty=0.5),
        Sampling(temperature=0, top_logprobs=2),
    ],
    ids=["temperature", "top_p", "penalties", "logprobs"],
)
def test_what_is_drawn_does_not_depend_on_guesses(tiny_model, sampling):
    found = []
    for most_guessed in (0, 6):
        served = loaded(tiny_model)
        scheduler = Scheduler(served.backend, prompt_tokens_per_step=64, most_guessed=most_guessed)
        found.append(answers_to(scheduler, [[5, 6, 7, 8, 5, 6, 7]], most=60, sampling=sampling))
    assert found[0] == found[1]


def test_an_end_within_a_guess_ends_the_answer(tiny_model):
    served = loaded(tiny_model)
    plain = Scheduler(served.backend, prompt_tokens_per_step=64)
    said = answers_to(plain, [[5, 6, 7]], most=60)[0]
    end = said[50]
    expected = said[: said.index(end) + 1]
    scheduler = Scheduler(served.backend, prompt_tokens_per_step=64, most_guessed=6)
    one = answer([5, 6, 7], most=60, ends=frozenset([end]))
    scheduler.add(one)
    finish(scheduler, [one])
    assert one.said == expected
    assert scheduler.idle


def test_adapters_guess_too(tiny_model, adapters):
    served = loaded(tiny_model)
    number = served.bank.add(read_adapter("one", str(adapters[0]), served.model))
    found = [
        answers_to(
            Scheduler(served.backend, prompt_tokens_per_step=64, most_guessed=guessed),
            [[5, 6, 7], [5, 6, 7]],
            most=50,
            adapters=[-1, number],
            sampling=GREEDY,
        )
        for guessed in (0, 4)
    ]
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]
