"""Logits at trained positions only, and the fused adapter layer: fast ways to the same numbers."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
import transformers
from training_parts import COLOURS

from tunesmith_workers.batches import Padding, RowSampler
from tunesmith_workers.fused_lora import FusedLoraLinear, use_fused_layers
from tunesmith_workers.lanes import Lanes, lanes_for, split
from tunesmith_workers.loss import TrainedTokenLoss
from tunesmith_workers.rendering import Renderer
from tunesmith_workers.rows import read_rows

# PEFT asks transformers by an old name; nothing of ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def rendered(tokenizer, write_rows):
    return Renderer(tokenizer).render(read_rows(write_rows(COLOURS)))


@pytest.fixture
def batch(rendered, tokenizer):
    return Padding(tokenizer.pad_token_id)(rendered[:4])


SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 0,
    "bos_token_id": 0,
}


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(
    "config",
    [
        transformers.LlamaConfig(**SIZES),
        transformers.Qwen3Config(**SIZES, head_dim=8),
        transformers.Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=0.5),
        transformers.CohereConfig(**SIZES, logit_scale=0.0625),
        transformers.GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0),
    ],
    ids=lambda config: config.model_type,
)
def test_the_loss_and_its_gradients_are_the_models_own(batch, config):
    """Also where a model scales or caps its logits: its own forward does that around the picked positions."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    own = copy.deepcopy(model)
    own_loss = own(**batch).loss
    own_loss.backward()
    ours = TrainedTokenLoss(model)
    result = ours(model, batch, count_correct=True)
    (result.total / result.trained).backward()
    assert result.trained == int((batch["labels"][:, 1:] != -100).sum())
    assert result.total.item() / result.trained == pytest.approx(own_loss.item(), rel=1e-5)
    for name, gradient in gradients(own).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-4, atol=1e-6)
    assert ours.settle(model, batch) is None
    assert ours.gathers


def test_a_model_with_a_loss_of_its_own_is_trained_by_it(batch):
    """Routing losses of mixtures of experts are not lost for speed: the difference is noticed on the first batch."""
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        **SIZES, num_local_experts=4, output_router_logits=True, router_aux_loss_coef=1.0
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    ours = TrainedTokenLoss(model)
    assert "against" in ours.settle(model, batch)
    result = ours(model, batch)
    assert result.total.item() / result.trained == pytest.approx(model(**batch).loss.item(), rel=1e-5)


def adapted(model, *, fused: bool, dropout: float = 0.0):
    torch.manual_seed(1)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=dropout
    )
    model = peft.get_peft_model(copy.deepcopy(model), use_fused_layers(config) if fused else config)
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide what the update does
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def llama(request):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, attention_bias=True)
    return transformers.LlamaForCausalLM(config).to(request.param)


def test_the_fused_layer_computes_what_peft_computes(llama, batch):
    """Same loss, same gradients, in float32 to the last digits and in bfloat16 within its rounding; A and B stay float32."""
    exact = llama.dtype == torch.float32
    plain, fused = adapted(llama, fused=False), adapted(llama, fused=True)
    assert any(isinstance(module, FusedLoraLinear) for module in fused.modules())
    assert not any(isinstance(module, FusedLoraLinear) for module in plain.modules())
    losses = []
    for model in (plain, fused):
        result = TrainedTokenLoss(model)(model, batch)
        (result.total / result.trained).backward()
        losses.append(result.total.item() / result.trained)
    assert losses[1] == pytest.approx(losses[0], rel=1e-6 if exact else 1e-2)
    assert set(gradients(fused)) == set(gradients(plain))
    for name, gradient in gradients(plain).items():
        found = gradients(fused)[name]
        assert found.dtype == torch.float32
        similar = torch.nn.functional.cosine_similarity(found.flatten(), gradient.flatten(), dim=0)
        assert similar > (0.999999 if exact else 0.99), name
        if exact:
            torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6)


def test_dropout_is_left_to_peft(llama, batch):
    """With dropout both run the same code, so the same seed gives the same loss."""
    losses = []
    for fused in (False, True):
        model = adapted(llama, fused=fused, dropout=0.5).train()
        torch.manual_seed(3)
        losses.append(TrainedTokenLoss(model)(model, batch).total.item())
    assert losses[0] == losses[1]


def test_the_order_of_rows_is_a_function_of_seed_and_epoch(rendered):
    """Every row comes once in an epoch, and a resumed run can find its place."""
    sampler = RowSampler(rendered, 4, seed=7, group_by_length=True)
    first = list(sampler)
    assert sorted(first) == list(range(len(rendered)))
    assert list(RowSampler(rendered, 4, seed=7, group_by_length=True)) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_rows_of_similar_length_share_a_batch(rendered):
    """Less padding than in a random order."""

    def padding(*, group_by_length: bool) -> int:
        order = list(RowSampler(rendered, 4, seed=0, group_by_length=group_by_length))
        lengths = [len(rendered[index].input_ids) for index in order]
        batches = [lengths[i : i + 4] for i in range(0, len(lengths), 4)]
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches)

    assert padding(group_by_length=True) < padding(group_by_length=False) / 4


def test_lanes_compute_what_one_thread_computes(rendered, tokenizer):
    """A batch in parts on threads of their own has the loss and gradients of the whole batch, every time the same."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    parameters = list(model.parameters())
    batch = Padding(tokenizer.pad_token_id)(rendered[:7])
    ours = TrainedTokenLoss(model)

    def of_part(part):
        total = ours(model, part).total
        return total.item(), torch.autograd.grad(total, parameters)

    whole, gradients = of_part(batch)
    for _ in range(3):
        results = Lanes(2).map(of_part, split(batch, 2))
        assert sum(loss for loss, _ in results) == pytest.approx(whole, rel=1e-5)
        for number, gradient in enumerate(gradients):
            found = results[0][1][number] + results[1][1][number]
            torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-5)


def test_parts_of_a_batch_are_no_longer_than_they_need_be(batch):
    """Every row is in one part, and a part is as long as its longest row."""
    parts = split(batch, 3)
    assert sum(len(part["input_ids"]) for part in parts) == len(batch["input_ids"])
    for part in parts:
        assert part["input_ids"].shape[1] == part["attention_mask"].sum(1).max()
    assert len(split(batch, 99)) == len(batch["input_ids"])


def test_a_model_with_dropout_gets_no_lanes(llama):
    """Lanes would draw from one stream of random numbers, in an order that nobody could repeat."""
    assert lanes_for(adapted(llama, fused=False, dropout=0.5)) is None
