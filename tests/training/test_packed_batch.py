"""Packed batches, with the shared prefix computed once: fewer tokens, and the numbers of the padded batch."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from training_parts import SIZES, TokenLoss, Verified, gradients, verified

from tunesmith_workers.cpu.packed_batch import PackedBatch
from tunesmith_workers.cpu.row_attention import SHORT, Layout, row_attention
from tunesmith_workers.examples.batches import Batch, concatenate, pad
from tunesmith_workers.examples.rendering import IGNORED, Rendered
from tunesmith_workers.training.exact import exactly

SYSTEM = [5, 6, 7, 8, 9, 10]
ENDS = [[20, 21, 22], [30], [20, 40, 41, 42, 43, 44, 45], [50, 51]]


def rendered(tokens: list[int], prompt: int) -> Rendered:
    return Rendered(tokens, [IGNORED] * prompt + tokens[prompt:], "somewhere", frozenset())


def of(rows: list[list[int]], prompt: int = 7) -> Batch:
    return concatenate([rendered(row, min(prompt, len(row) - 1)) for row in rows])


def model_of(config) -> torch.nn.Module:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config)).train()


LLAMA = transformers.LlamaConfig(**SIZES)

BATCHES = {
    "a system prompt": of([SYSTEM + end for end in ENDS]),
    "nothing in common": of([[i + 60, *end, *SYSTEM] for i, end in enumerate(ENDS)]),
    "trained in what is shared": of([SYSTEM + end for end in ENDS], prompt=0),
    "one row": of([SYSTEM + ENDS[0]]),
    "equal rows": of([SYSTEM + ENDS[0]] * 3),
    "one begins another": of([SYSTEM, SYSTEM + ENDS[2], SYSTEM + ENDS[0]], prompt=3),
    "long rows": of([[7] * 390 + [*range(100 + i, 240)] for i in range(3)], prompt=400),
    "long rows with little in common": of([[7] * 20 + [*range(100 + i, 300)] * 3 for i in range(3)], prompt=10),
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_loss_and_gradients_are_those_of_the_padded_batch(batch):
    """Whatever the rows have in common, and wherever they are trained."""
    check_equal(model_of(LLAMA), batch)


@pytest.mark.parametrize(
    "config",
    [
        transformers.Qwen2Config(**SIZES),
        transformers.Qwen3Config(**SIZES, head_dim=8),
        transformers.CohereConfig(**SIZES, logit_scale=0.0625),
        transformers.GPT2Config(
            vocab_size=320, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0,
            attn_pdrop=0, resid_pdrop=0, embd_pdrop=0,
        ),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_other_models_too(config):
    """With their own norms, positions and scales."""
    check_equal(model_of(config), BATCHES["a system prompt"])


def check_equal(model: torch.nn.Module, batch: Batch) -> None:
    other = copy.deepcopy(model)
    ours, plain = TokenLoss(model), TokenLoss(other)
    assert verified(ours, model, batch, fastest=True) == Verified()
    assert ours.packs
    result, expected = ours(model, batch, measures=True), plain(other, batch, measures=True)
    result.total.backward()
    expected.total.backward()
    assert result.total.item() == pytest.approx(expected.total.item(), rel=1e-5)
    assert (result.items, result.measured) == (expected.items, expected.measured)
    for name, gradient in gradients(other).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["a system prompt", "long rows"])
def test_under_autocast_too(name):
    """Weights in float32 and products in bfloat16, as full fine-tuning runs."""
    model = model_of(LLAMA)
    other = copy.deepcopy(model)
    ours = TokenLoss(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert verified(ours, model, BATCHES[name], fastest=True) == Verified()
        assert ours.packs
        result, expected = ours(model, BATCHES[name]), TokenLoss(other)(other, BATCHES[name])
    result.total.backward()
    expected.total.backward()
    assert result.total.item() == pytest.approx(expected.total.item(), rel=1e-2)
    for name, gradient in gradients(other).items():
        similar = torch.nn.functional.cosine_similarity(gradients(model)[name].flatten(), gradient.flatten(), dim=0)
        assert similar > 0.99, name


def test_what_is_compared_is_float32_where_accelerate_trains_in_bfloat16(tmp_path):
    """Accelerate turns autocast on in the model's own forward; inside a comparison it is off, and on again after it."""
    model = model_of(LLAMA)
    arguments = transformers.TrainingArguments(str(tmp_path), bf16=True, use_cpu=True)
    accelerator = transformers.Trainer(model, arguments).accelerator
    model = accelerator.prepare_model(model)
    seen: list[torch.Tensor] = []
    model.model.layers[0].mlp.register_forward_hook(lambda _, __, output: seen.append(output))
    batch, ours = BATCHES["a system prompt"], TokenLoss(model)
    with accelerator.autocast(), exactly(model):
        model(**pad(batch, 0))
    model(**pad(batch, 0))
    assert [output.dtype for output in seen] == [torch.float32, torch.bfloat16]
    with accelerator.autocast():
        assert verified(ours, model, batch, fastest=True) == Verified()
    assert ours.packs


def test_what_rows_share_is_computed_once():
    """A system prompt stands there once, then what is each row's own, with the positions it had; nothing is padding."""
    rows = PackedBatch(of([[*SYSTEM, 20, 21, 22], [*SYSTEM, 40, 41]]))
    assert rows.tokens.tolist() == [[*SYSTEM, 20, 21, 40]]  # nothing is predicted from the last token of a row
    assert rows.positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 6]]
    assert (rows.layout.shared, rows.layout.own) == (6, (2, 1))


def test_each_row_keeps_a_token_of_its_own():
    """Also where rows are equal, or one begins the other."""
    assert PackedBatch(BATCHES["equal rows"]).layout.own == (1, 1, 1)
    assert min(PackedBatch(BATCHES["one begins another"]).layout.own) == 1


def test_long_rows_share_where_it_is_worth_it():
    """A long beginning is computed once; for a short one, attention would be slower by more."""
    long = PackedBatch(BATCHES["long rows with little in common"]).layout
    assert long.longest > SHORT
    assert long.shared == 0
    assert PackedBatch(BATCHES["long rows"]).layout.shared == 390


def test_what_follows_the_last_prediction_is_left_out():
    """No loss depends on it: the last token of a row, and a question after the last answer."""
    batch = concatenate([Rendered([5, 6, 7, 8, 9], [IGNORED, IGNORED, 7, IGNORED, IGNORED], "somewhere", frozenset())])
    assert PackedBatch(batch).tokens.tolist() == [[5, 6]]
    check_equal(model_of(LLAMA), batch)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (transformers.MistralConfig(**SIZES, sliding_window=4), "sliding_window"),
        (transformers.Gemma2Config(**SIZES, head_dim=8), "not every layer attends to the whole row"),
        (transformers.LlamaConfig(**SIZES, attention_dropout=0.1), "dropout"),
        (transformers.MambaConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2), "attention"),
        (transformers.BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=4), "attention"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_a_model_that_attends_otherwise_keeps_its_padding(config, reason):
    """The reason is told, and its loss is what it was before."""
    model = model_of(config)
    ours = TokenLoss(model)
    batch = BATCHES["a system prompt"]
    before = ours(model.eval(), batch).total.item()
    assert reason in verified(ours, model, batch, fastest=True).slower.padded
    assert not ours.packs
    assert ours(model.eval(), batch).total.item() == before


@pytest.mark.parametrize(("name", "value"), [("s_aux", torch.ones(4)), ("softcap", 30.0), ("sliding_window", 8)])
def test_what_an_attention_cannot_do_is_said(name, value):
    """Sinks, caps and windows are named, so that the log says why a model is padded."""
    states = torch.ones(1, 4, 2, 8)
    with pytest.raises(ValueError, match=f"does not know {name}"):
        row_attention(torch.nn.Module(), states, states, states, None, layout=Layout(0, (2,)), **{name: value})


def test_a_model_that_changes_what_rows_are_is_found_out():
    """A layer that attends twice, or not at all, does something with rows that is not known here."""
    model = model_of(LLAMA)
    model.config.num_hidden_layers = 3
    found = verified(TokenLoss(model), model, BATCHES["a system prompt"], fastest=True)
    assert "2 of 3 layers attended" in found.slower.padded
