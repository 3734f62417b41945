"""Logits at trained positions only, and the fused adapter layer: fast ways to the same numbers."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
import transformers
from training_parts import COLOURS, SIZES, TokenLoss, Verified, gradients, orders_bfloat16, verified
from transformers.integrations.flash_attention import get_target_dtype
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_flash_attention_utils import fa_peft_integration_check

from tunesmith_workers.cpu.prepacked import prepack_weights
from tunesmith_workers.examples.batches import concatenate, count_trained, pad, take
from tunesmith_workers.examples.order import RowSampler
from tunesmith_workers.examples.rendering import Renderer
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.models.structure import set_attention
from tunesmith_workers.process.faults import WorkerFault
from tunesmith_workers.weights.fused_lora import FusedLoraLinear, use_fused_layers

# PEFT asks transformers by an old name; nothing of ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def rendered(tokenizer, write_rows):
    return Renderer(tokenizer).render(read_rows(write_rows(COLOURS)))


@pytest.fixture
def batch(rendered):
    return concatenate(rendered[:4])


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
    own_loss = own(**pad(batch, 0)).loss
    own_loss.backward()
    ours = TokenLoss(model)
    result = ours(model, batch, measures=True)
    (result.total / result.items).backward()
    assert result.items == int(count_trained(batch))
    assert result.total.item() / result.items == pytest.approx(own_loss.item(), rel=1e-5)
    for name, gradient in gradients(own).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-4, atol=1e-6)
    assert verified(ours, model, batch, fastest=False).own_loss is None
    assert ours.gathers


def routed(coefficient: float, **settings) -> transformers.MixtralConfig:
    return transformers.MixtralConfig(
        **SIZES, num_local_experts=4, output_router_logits=True, router_aux_loss_coef=coefficient, **settings
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("coefficient", [1.0, 0.02, 0.001])
def test_a_model_with_a_loss_of_its_own_is_trained_by_it(batch, coefficient, dtype):
    """Routing losses of mixtures of experts are not lost for speed, however little they add, nor in bfloat16."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(routed(coefficient)).to(dtype)
    ours = TokenLoss(model)
    found = verified(ours, model, batch, fastest=True)
    assert "loss of its own for routing" in found.own_loss
    assert found.slower.whole is not None
    assert not ours.packs
    own = model(**pad(batch, 0))
    result = ours(model, batch)
    assert result.total.item() / result.items == pytest.approx(own.loss.item(), rel=1e-5)
    assert result.measured == {}


class Scaled(transformers.LlamaForCausalLM):
    """Adds to its loss what no output names."""

    def forward(self, *args, labels=None, **kwargs):
        outputs = super().forward(*args, labels=labels, **kwargs)
        if labels is not None:
            outputs.loss = outputs.loss + 2e-5 * outputs.logits.float().logsumexp(-1).square().mean()
        return outputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_loss_that_nothing_names_is_found_by_comparing(batch, dtype):
    """A z-loss of a ten-thousandth is more than float32 rounds, and bfloat16 does not hide it."""
    torch.manual_seed(0)
    model = Scaled(transformers.LlamaConfig(**SIZES)).to(dtype)
    ours = TokenLoss(model)
    assert "the cross entropy of its logits" in verified(ours, model, batch, fastest=True).own_loss
    assert not ours.gathers


def attend_in_sixteen_bits(module, query, key, value, attention_mask, **settings):
    """Like flash attention: float32 is cast back by transformers' own rule, and the kernel refuses what is left of it."""
    states = fa_peft_integration_check(query, key, value, get_target_dtype(query, module))
    if any(state.dtype not in (torch.float16, torch.bfloat16) for state in states):
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    return sdpa_attention_forward(module, *states, attention_mask, **settings)


@pytest.fixture
def flash_like():
    """The name of an attention that behaves like flash attention, which needs a GPU."""
    name = "flash_attention_like"
    transformers.AttentionInterface.register(name, attend_in_sixteen_bits)
    transformers.AttentionMaskInterface.register(name, sdpa_mask)
    yield name
    del transformers.AttentionInterface._global_mapping[name]
    del transformers.AttentionMaskInterface._global_mapping[name]


@pytest.mark.parametrize("router", [0.0, 1.0])
def test_flash_attention_is_no_reason_for_the_models_own_loss(flash_like, batch, router):
    """It knows no float32, so another attention stands in for it there, and it is tried in its own precision after that."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(routed(router)).bfloat16()
    set_attention(model, flash_like)
    ours = TokenLoss(model)
    found = verified(ours, model, batch, fastest=False)
    assert model.config._attn_implementation == flash_like
    assert (found.own_loss is None) == ours.gathers == (router == 0.0)
    assert found.own_loss is None or "routing" in found.own_loss


@pytest.mark.parametrize("trained", ["an adapter", "all weights"])
def test_flash_attention_trains_adapters_and_whole_models(flash_like, batch, trained):
    """In bfloat16 with an adapter in float32, and under autocast."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    if trained == "an adapter":
        model = adapted(model.bfloat16(), fused=True)
    set_attention(model, flash_like)
    with torch.autocast("cpu", torch.bfloat16, enabled=trained == "all weights"):
        assert verified(TokenLoss(model), model, batch, fastest=False) == Verified()


def test_a_routers_loss_is_the_mean_over_micro_batches_by_their_tokens(batch):
    """With gradients accumulated over two unlike batches, each adds its loss as often as it has trained tokens."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(routed(1.0))
    ours = TokenLoss(model)
    verified(ours, model, batch, fastest=True)
    parts = [take(batch, rows) for rows in (slice(0, 3), slice(3, 4))]
    trained = sum(int(count_trained(part)) for part in parts)
    for part in parts:
        (ours(model, part).total / trained).backward()
    found = {name: gradient.clone() for name, gradient in gradients(model).items()}
    model.zero_grad()
    sum(model(**pad(part, 0)).loss * int(count_trained(part)) / trained for part in parts).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


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
        result = TokenLoss(model)(model, batch)
        (result.total / result.items).backward()
        losses.append(result.total.item() / result.items)
    assert losses[1] == pytest.approx(losses[0], rel=1e-6 if exact else 1e-2)
    assert set(gradients(fused)) == set(gradients(plain))
    for name, gradient in gradients(plain).items():
        found = gradients(fused)[name]
        assert found.dtype == torch.float32
        similar = torch.nn.functional.cosine_similarity(found.flatten(), gradient.flatten(), dim=0)
        assert similar > (0.999999 if exact else 0.99), name
        if exact:
            torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not orders_bfloat16(), reason="this CPU, or this build of torch, prepacks no weights")
def test_prepacked_base_weights_give_the_same_numbers():
    """Where there is memory for copies, in bfloat16; once the base weights have changed, they are used themselves."""
    torch.manual_seed(0)
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, attention_bias=True)).bfloat16()
    plain, prepacked = adapted(llama, fused=True), adapted(llama, fused=True)
    assert not prepack_weights(prepacked, free_memory=1000)
    assert prepack_weights(prepacked, free_memory=2**30)
    ids = torch.randint(1, 320, (120,))
    batch = {"input_ids": ids, "labels": ids, "lengths": (30,) * 4}
    totals = []
    for model in (plain, prepacked):
        result = TokenLoss(model)(model, batch)
        result.total.backward()
        totals.append(result.total.item())
    assert totals[1] == pytest.approx(totals[0], rel=1e-3)
    for name, gradient in gradients(plain).items():
        similar = torch.nn.functional.cosine_similarity(gradients(prepacked)[name].flatten(), gradient.flatten(), dim=0)
        assert similar > 0.999, name
    for model in (plain, prepacked):
        model.merge_adapter()
        model.unmerge_adapter()
    with torch.no_grad():
        assert torch.equal(plain(ids[None]).logits, prepacked(ids[None]).logits)


def test_dropout_is_left_to_peft(llama, batch):
    """With dropout both run the same code, so the same seed gives the same loss."""
    losses = []
    for fused in (False, True):
        model = adapted(llama, fused=fused, dropout=0.5).train()
        torch.manual_seed(3)
        losses.append(TokenLoss(model)(model, batch).total.item())
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


def test_a_pad_token_that_the_model_does_not_know_does_no_harm(batch):
    """Tokenizers get one added without the model growing with them; what pads is never looked at."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    known, unknown = TokenLoss(model), TokenLoss(model, pad_token=320)
    assert verified(unknown, model, batch, fastest=False) == Verified()
    assert unknown(model, batch).total.item() == pytest.approx(known(model, batch).total.item(), rel=1e-6)


def test_logits_are_not_given_where_only_the_models_own_loss_is_right(batch):
    """An objective that does not ask loses no loss of a router in silence."""
    model = transformers.AutoModelForCausalLM.from_config(routed(1.0))
    ours = TokenLoss(model)
    verified(ours, model, batch, fastest=True)
    with pytest.raises(WorkerFault, match="more than what its logits say"):
        ours.logits(model, batch)


def test_parts_of_a_batch_keep_what_it_holds(batch):
    """By row or by token; what is neither is refused, not lost."""
    rows = len(batch["lengths"])
    more = {**batch, "weights": torch.arange(rows), "advantages": torch.arange(sum(batch["lengths"]))}
    part = take(more, slice(1, None, 2))
    assert part["weights"].tolist() == [1, 3]
    assert len(part["advantages"]) == sum(part["lengths"]) == len(part["input_ids"])
    with pytest.raises(ValueError, match="beta has 1 entries"):
        take({**batch, "beta": torch.ones(1)}, slice(1))
