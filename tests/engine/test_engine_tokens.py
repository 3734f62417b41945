"""The engine says, token for token, what ``generate`` says: alone, in any company, with adapters, and from shared beginnings."""

from __future__ import annotations

import pytest
import torch
from serving_parts import answer, answers_to, finish, generated, loaded, some_prompts
from transformers import AutoModelForCausalLM

from support.families import model_of
from tunesmith_workers.cpu import decoder_for
from tunesmith_workers.engine.adapters import AdapterBank, read_adapter
from tunesmith_workers.engine.loading import backend_for
from tunesmith_workers.engine.packed import Packed
from tunesmith_workers.engine.recomputed import Recomputed
from tunesmith_workers.engine.scheduler import Scheduler
from tunesmith_workers.engine.sequential import Sequential
from tunesmith_workers.models.structure import sees_by_position

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

FAMILIES: dict[str, str] = {
    "llama": "Decoder",
    "mistral": "Decoder",
    "qwen2": "Decoder",
    "qwen3": "Decoder",
    "phi3": "Packed",
    "gemma": "Packed",
    "granite": "Packed",
    "olmo2": "Packed",
    "smollm3": "Packed",
    "gpt_neox": "Packed",
    "gpt2": "Packed",
    "qwen3_moe": "Packed",
    "gemma2": "Sequential",
    "mamba": "Sequential",
    "bloom": "Sequential",
}

SETTINGS = {
    "granite": {"residual_multiplier": 0.5, "logits_scaling": 2.0},  # else it is a Llama
    "smollm3": {"no_rope_layers": [1, 0]},  # likewise
    "mistral": {"sliding_window": 64},
}


@pytest.mark.parametrize("accelerated", [True, False], ids=["accelerated", "packed"])
def test_two_hundred_answers_together_are_those_of_generate_one_by_one(tiny_model, accelerated):
    served = loaded(tiny_model, slots=7, accelerated=accelerated)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    prompts = some_prompts(200, 300, shared=5)
    scheduler = Scheduler(served.backend, prompt_tokens_per_step=16)
    assert answers_to(scheduler, prompts) == [generated(plain, prompt) for prompt in prompts]
    assert scheduler.idle


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_served_right_and_as_fast_as_it_can_be(family):
    plain, model = (model_of(family, **SETTINGS.get(family, {})).eval() for _ in range(2))
    prompts = some_prompts(9, 120)
    expected = [generated(plain, prompt, 6) for prompt in prompts]
    backend = backend_for(model, AdapterBank(), 3, 64, decoder_for)
    assert type(backend).__name__ == FAMILIES[family]
    assert answers_to(Scheduler(backend, prompt_tokens_per_step=16), prompts, most=6) == expected


LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0, 3.0, 2.0, 8.0],
}
TURNED_BY_LENGTH = {"rope_parameters": LONG_ROPE, "original_max_position_embeddings": 48}


def test_sequences_that_are_turned_by_their_length_are_not_computed_side_by_side():
    """One of more than 48 tokens would turn all others with it."""
    plain, model = (model_of("phi3", **TURNED_BY_LENGTH).eval() for _ in range(2))
    prompts = [list(range(3, 3 + length)) for length in (5, 55, 9, 51, 12)]
    expected = [generated(plain, prompt, 6) for prompt in prompts]
    backend = backend_for(model, AdapterBank(), 3, 64, decoder_for)
    assert isinstance(backend, Sequential)
    assert answers_to(Scheduler(backend, prompt_tokens_per_step=16), prompts, most=6) == expected


@pytest.mark.parametrize(
    ("family", "settings", "longest", "alike"),
    [
        ("phi3", TURNED_BY_LENGTH, 48, True),
        ("phi3", TURNED_BY_LENGTH, 49, False),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, 128, True),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, 129, False),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, 999, True),
        ("mistral", {"sliding_window": 64}, 64, True),
        ("mistral", {"sliding_window": 64}, 65, False),
        ("llama4_text", {"attention_chunk_size": 64}, 65, False),
    ],
)
def test_what_a_token_sees_by_its_position(family, settings, longest, alike):
    assert (sees_by_position(model_of(family, **settings), longest) is None) == alike


def test_adapters_in_one_batch_say_what_each_says_alone(tiny_model, adapters):
    from peft import PeftModel

    served = loaded(tiny_model)
    numbers = [served.bank.add(read_adapter(folder.name, str(folder), served.model)) for folder in adapters]
    prompts = some_prompts(16, 300)
    chosen = [-1, *numbers] * 4
    found = answers_to(Scheduler(served.backend, prompt_tokens_per_step=16), prompts, adapters=chosen)
    by_adapter = {-1: AutoModelForCausalLM.from_pretrained(tiny_model).eval()}
    for number, folder in zip(numbers, adapters, strict=True):
        by_adapter[number] = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder).eval()
    expected = [generated(by_adapter[number], prompt) for number, prompt in zip(chosen, prompts, strict=True)]
    assert found == expected
    scheduler = Scheduler(served.backend, prompt_tokens_per_step=16)
    same_prompt = answers_to(scheduler, [prompts[3]] * 4, adapters=[-1, *numbers])
    assert len(set(map(tuple, same_prompt))) == 4


@pytest.mark.parametrize("kind", [Packed, Sequential, Recomputed])
def test_adapters_are_added_whatever_computes(tiny_model, adapters, kind):
    from peft import PeftModel

    model, bank = AutoModelForCausalLM.from_pretrained(tiny_model).eval(), AdapterBank()
    backend = kind(model, bank, 4, 128)
    number = bank.add(read_adapter("one", str(adapters[1]), model))
    prompts = some_prompts(6, 300)
    found = answers_to(Scheduler(backend, prompt_tokens_per_step=16), prompts, adapters=[-1, number] * 3)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), adapters[1]).eval()
    assert found == [generated((plain, adapted)[place % 2], prompt) for place, prompt in enumerate(prompts)]


def test_a_shared_beginning_is_computed_once(tiny_model):
    served = loaded(tiny_model, slots=6)
    computed: list[int] = []
    step = served.backend.step

    def counting(pieces):
        computed.append(sum(len(piece.tokens) for piece in pieces))
        return step(pieces)

    served.backend.step = counting
    beginning = some_prompts(1, 300, shared=50)[0][:50]
    prompts = [[*beginning, *ending] for ending in some_prompts(5, 300)]
    scheduler = Scheduler(served.backend, prompt_tokens_per_step=64)
    made = [answer(prompt, most=4) for prompt in prompts]
    for one in made:
        scheduler.add(one)
    finish(scheduler, made)
    own = sum(len(prompt) - 50 for prompt in prompts)
    assert sum(computed) <= 50 + own + 5 * 3 + len(prompts)
    assert made[0].reused == 0
    assert all(one.reused >= 50 for one in made[1:])
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    assert [one.said for one in made] == [generated(plain, prompt, 4) for prompt in prompts]


def test_a_conversation_that_goes_on_is_not_computed_again(tiny_model):
    served = loaded(tiny_model)
    scheduler = Scheduler(served.backend, prompt_tokens_per_step=64)
    first = answer(some_prompts(6, 300)[5])
    scheduler.add(first)
    finish(scheduler, [first])
    second = answer([*first.prompt, *first.said, 7, 8, 9])
    scheduler.add(second)
    finish(scheduler, [second])
    # The last token that was said has not been computed: nothing came after it.
    assert second.reused == len(first.prompt) + len(first.said) - 1
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    assert second.said == generated(plain, second.prompt)


def test_another_adapter_shares_no_beginning(tiny_model, adapters):
    served = loaded(tiny_model)
    number = served.bank.add(read_adapter("one", str(adapters[0]), served.model))
    scheduler = Scheduler(served.backend, prompt_tokens_per_step=64)
    prompt = some_prompts(6, 300)[5]
    answers_to(scheduler, [prompt])
    other = answer(prompt, adapter=number)
    scheduler.add(other)
    finish(scheduler, [other])
    assert other.reused == 0


def test_a_model_that_fails_ends_its_answers_and_nothing_else(tiny_model):
    served = loaded(tiny_model)
    scheduler = Scheduler(served.backend, prompt_tokens_per_step=64)
    step, fails = served.backend.step, [True]

    def failing(pieces):
        if fails:
            raise RuntimeError("no memory is left")
        return step(pieces)

    served.backend.step = failing
    scheduler.add(answer([5, 6, 7]))
    (event,) = scheduler.step()
    assert event.failure == "RuntimeError: no memory is left"
    fails.clear()
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    assert answers_to(scheduler, [[5, 6, 7]]) == [generated(plain, [5, 6, 7])]


def test_what_is_cancelled_leaves_before_the_next_step(tiny_model):
    scheduler = Scheduler(loaded(tiny_model).backend, prompt_tokens_per_step=64)
    made = [answer([5, 6, number], most=100) for number in range(6)]
    for one in made:
        scheduler.add(one)
    scheduler.step()
    for one in made:
        one.cancelled = True
    scheduler.step()
    assert scheduler.idle


def test_long_and_short_answers_do_not_change_each_other(tiny_model):
    """So unlike in length that slots attend one by one, not together."""
    served = loaded(tiny_model, slots=8, longest=512)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    random = torch.Generator().manual_seed(3)
    long = torch.randint(3, 300, (490,), generator=random).tolist()
    prompts = [[9], long, *([11, number] for number in range(20, 26))]
    scheduler = Scheduler(served.backend, prompt_tokens_per_step=600)
    assert answers_to(scheduler, prompts) == [generated(plain, prompt) for prompt in prompts]
    assert not served.backend._cache._together
