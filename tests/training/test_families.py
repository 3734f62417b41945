"""Model families: each is trained with the loss and gradients of a plain loop, however fast, or the log says what was left out."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from training_parts import TokenLoss, Verified, config_and_folders, verified

from support import families
from tunesmith_workers.cpu.forked_workers import forked_workers_for
from tunesmith_workers.examples.batches import Batch, concatenate, count_trained, pad, take
from tunesmith_workers.examples.rendering import IGNORED, Rendered
from tunesmith_workers.models.loading import load_model, named_attention
from tunesmith_workers.models.structure import attention_of
from tunesmith_workers.process.faults import BadConfig, ModelUnavailable
from tunesmith_workers.weights.fused_lora import FusedLoraLinear
from tunesmith_workers.weights.lora import LoraWeights

pytestmark = [
    # PEFT asks transformers by an old name, and warns of what it does with a tied output layer; nothing of ours to mend.
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning"),
    # It expects experts in every layer of some families, and a tiny model may have none.
    pytest.mark.filterwarnings("ignore:target_parameters=:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:The following alpha_pattern keys:RuntimeWarning"),
]

PACKED = ("llama", "qwen2", "qwen3", "gemma", "phi", "olmo", "cohere", "mixtral", "seed_oss", "gpt2")
"""Whose rows are packed: they lose none of their speed to a comparison."""

PADDED = (
    "falcon", "jamba", "llama4_text", "phimoe", "mamba", "mamba2", "falcon_h1", "gemma2", "gpt_oss", "bloom", "gpt_neo",
    "gptj", "mpt", "mistral",
)  # fmt: skip

NOT_TINY = {
    "xmod": "it must be told a language before it runs",
}
"""Families of which no tiny model can be trained by a plain loop either. Wrappers of several models, which are large
whatever is asked for, and families whose config asks for more than sizes are left out by ``families.fails``."""

METHODS = ("sft", "lora")


def batch() -> Batch:
    """Rows of unlike lengths with a common beginning."""
    numbers = random.Random(0)  # not a secret
    common = [numbers.randrange(3, 100) for _ in range(6)]
    rows = [common + [numbers.randrange(3, 100) for _ in range(length - 6)] for length in (19, 12, 25, 9)]
    return concatenate([Rendered(row, [IGNORED] * 7 + row[7:], "somewhere", frozenset()) for row in rows])


@pytest.fixture
def config(write_config, tmp_path):
    path = write_config(tmp_path / "rows.jsonl", lora={"r": 4, "lora_alpha": 8, "target_modules": ["all-linear"]})
    return config_and_folders(path)[0]


def plain_and_ours(family: str, method: str, config: Any, **settings: Any) -> tuple[Any, Any]:
    """The same model as libraries alone make it, and as we do."""
    base = families.model_of(family, **settings)
    if method == "sft":
        return copy.deepcopy(base), base
    plain_base = copy.deepcopy(base)
    ours = LoraWeights().attach(base, config, fuses=True)
    for name, parameter in ours.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide what the adapter does
            torch.nn.init.normal_(parameter, std=0.1)
    same = copy.deepcopy(ours.peft_config["default"])
    same._custom_modules = None
    plain = peft.get_peft_model(plain_base, same)
    assert not any(isinstance(module, FusedLoraLinear) for module in plain.modules())
    plain.load_state_dict(ours.state_dict())
    return plain, ours


def seeded() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  # the generator that transformers draws from
    random.seed(5)


def plain_loss(model: Any, batch: Batch) -> Tensor:
    """The model's own loss. Decoders of translation models want labels that are shifted already."""
    rows = pad(batch, 0)
    seeded()
    outputs = model(**rows, use_cache=False)
    aligned = cross_entropy(outputs.logits.flatten(0, 1).float(), rows["labels"].flatten())
    if abs(float(aligned) - float(outputs.loss)) > 1e-5:
        return outputs.loss
    seeded()
    rows["labels"] = torch.nn.functional.pad(rows["labels"][:, 1:], (0, 1), value=IGNORED)
    return model(**rows, use_cache=False).loss


def gradient_of(loss: Tensor, model: Any) -> list[Tensor]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def check_same(found: tuple[float, list[Tensor]], expected: tuple[float, list[Tensor]]) -> None:
    assert found[0] == pytest.approx(expected[0], abs=1e-4)
    ours, plain = (torch.cat([g.flatten() for g in gradients]) for _, gradients in (found, expected))
    assert plain.norm() > 0
    assert float((ours - plain).norm()) <= 1e-3 * float(plain.norm())


def check(family: str, method: str, config: Any) -> tuple[Verified, TokenLoss]:
    plain, ours = plain_and_ours(family, method, config)
    rows, loss = batch(), TokenLoss(ours)
    found = verified(loss, ours.train(), rows, fastest=True)
    expected_loss = plain_loss(plain.train(), rows)
    expected = float(expected_loss), gradient_of(expected_loss, plain)
    seeded()
    result = loss(ours, rows)
    check_same((float(result.total) / result.items, gradient_of(result.total / result.items, ours)), expected)
    if found.slower.whole is None:
        check_parts(loss, ours, rows, expected)
    return found, loss


def check_parts(loss: TokenLoss, model: Any, rows: Batch, expected: Any) -> None:
    """As forked processes compute them."""
    trained = int(count_trained(rows))
    totals = [loss(model, part).total / trained for part in (take(rows, slice(number, None, 2)) for number in range(2))]
    summed = [sum(each) for each in zip(*(gradient_of(total, model) for total in totals), strict=True)]
    check_same((float(sum(totals)), summed), expected)


@pytest.mark.parametrize(
    ("family", "method"),
    [*((family, "lora") for family in PACKED), ("llama", "sft"), ("mixtral", "sft"), ("gpt2", "sft")],
)
def test_packed_batches_train_as_a_plain_loop_does(family, method, config):
    """Same loss, same gradients, and nothing of the speed is lost."""
    found, loss = check(family, method, config)
    assert found == Verified()
    assert loss.packs


@pytest.mark.parametrize("family", PADDED)
def test_what_cannot_be_packed_trains_as_a_plain_loop_does(family, config):
    """Adapters on every kind of layer: what changes its input in place, experts that see no token, layers that refuse."""
    found, loss = check(family, "lora", config)
    assert found.slower.padded
    assert not loss.packs


@pytest.mark.torture
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", [family for family in families.EVERY if family not in NOT_TINY])
def test_every_family_trains_as_a_plain_loop_does(family, method, config):
    """All that transformers knows: as fast as it may be, with the numbers of the model's own loss."""
    if reason := families.fails(family):
        pytest.skip(reason)
    check(family, method, config)


@pytest.mark.parametrize("family", ["mixtral", "jamba", "phimoe"])
def test_a_routers_loss_is_trained(family, config):
    """Where the config has the router's loss computed, it is part of what is trained, and batches stay whole."""
    plain, ours = plain_and_ours(family, "lora", config, output_router_logits=True, router_aux_loss_coef=0.001)
    loss = TokenLoss(ours)
    found = verified(loss, ours, batch(), fastest=True)
    assert "for routing" in found.own_loss
    assert found.slower.whole
    expected = plain_loss(plain.train(), batch())
    seeded()
    result = loss(ours.train(), batch())
    assert float(result.total) / result.items == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("seed_oss", {"residual_dropout": 0.1}),
        ("seed_oss", {"attention_dropout": 0.1}),
        ("phimoe", {"input_jitter_noise": 0.1}),
        ("opt", {"layerdrop": 0.1}),
    ],
    ids=str,
)
def test_randomness_under_any_name_is_seen(family, settings):
    """Packed rows would draw the same numbers, and forked processes others: neither is done."""
    model = families.model_of(family, **settings).train()
    loss = TokenLoss(model)
    found = verified(loss, model, batch(), fastest=True)
    assert "random" in found.slower.whole
    assert not loss.packs


def test_dropout_in_a_modules_attribute_starts_no_workers():
    """It is seen before anything runs."""
    torch.set_num_threads(2)
    try:
        assert forked_workers_for(families.model_of("seed_oss"), rows=8) == 2
        assert forked_workers_for(families.model_of("seed_oss", residual_dropout=0.1), rows=8) is None
    finally:
        torch.set_num_threads(1)


def test_randomness_that_no_module_names_is_seen_when_it_is_drawn():
    """A function that reads its probability from somewhere else."""
    model = families.model_of("llama").train()
    model.model.layers[0].mlp.register_forward_hook(
        lambda module, _, output: torch.dropout(output, 0.1, module.training)
    )
    loss = TokenLoss(model)
    assert "draws random numbers" in verified(loss, model, batch(), fastest=True).slower.whole
    assert not loss.packs


def test_positions_that_enter_attention_in_a_way_of_its_own_are_noticed(config):
    """Falcon's alibi: transformers adds it twice in eager attention, so sdpa is used where both are there."""
    model = families.model_of("falcon", attention="eager", alibi=True)
    loss = TokenLoss(model)
    found = verified(loss, model, batch(), fastest=True)
    assert "other logits than sdpa" in found.slower.attention
    assert attention_of(model) == "sdpa"
    assert found.slower.padded
    plain = families.model_of("falcon", attention="sdpa", alibi=True).train()
    result = loss(model.train(), batch())
    assert float(result.total) / result.items == pytest.approx(float(plain_loss(plain, batch())), abs=1e-5)


def test_a_row_that_others_change_keeps_its_batch_whole():
    """Cpmant numbers positions from the end of the longest row."""
    model = families.model_of("cpmant")
    found = verified(TokenLoss(model), model, batch(), fastest=True)
    assert "depends on others" in found.slower.whole
    assert found.slower.padded


@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_comparing_leaves_no_trace(family):
    """Neither in what is random afterwards, nor in gradients or modes."""
    model = families.model_of(family).eval()
    seeded()
    expected = torch.rand(4), np.random.rand(), random.random()  # noqa: NPY002  # the generators that are shared
    seeded()
    verified(TokenLoss(model), model, batch(), fastest=True)
    found = torch.rand(4), np.random.rand(), random.random()  # noqa: NPY002  # likewise
    assert torch.equal(found[0], expected[0])
    assert found[1:] == expected[1:]
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("family", ["llama", "mixtral", "falcon", "gemma2"])
def test_in_bfloat16_the_same_is_found_as_in_float32(family, config):
    """What bfloat16 rounds neither hides a difference nor makes one up."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model = LoraWeights().attach(families.model_of(family).to(dtype), config, fuses=True)
        loss = TokenLoss(model)
        found.append((verified(loss, model, batch(), fastest=True), loss.packs, loss.gathers))
    assert found[0] == found[1]


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss", "bloom", "gpt_neo", "gptj", "mpt", "rwkv", "mamba", "llama"])
def test_auto_is_an_attention_that_the_model_has(family, tmp_path):
    """Also in float32, where eager attention has no advantage; one that was asked for is refused, and the error says what to do."""
    families.model_of(family).save_pretrained(tmp_path)
    model = load_model(str(tmp_path), torch.float32, named_attention("auto"))
    has_sdpa = family == "llama"
    assert attention_of(model) == ("sdpa" if has_sdpa else "eager")
    if has_sdpa:
        return
    with pytest.raises(ModelUnavailable) as refused:
        load_model(str(tmp_path), torch.float32, named_attention("sdpa"))
    assert "model.attention" in refused.value.mend


@pytest.mark.parametrize(
    ("family", "left_out"),
    [("mamba", "out_proj"), ("falcon_h1", "out_proj"), ("llama4_text", "router"), ("phimoe", "router")],
)
def test_layers_that_no_adapter_fits_are_left_out_and_named(family, left_out, config, capsys):
    """The others are adapted, and the adapter's file says which."""
    model = LoraWeights().attach(families.model_of(family), config, fuses=True)
    adapted = {
        name.rpartition(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if "lora_A" in name
    }
    assert adapted
    assert left_out not in adapted
    assert f"leaves out {left_out}" in capsys.readouterr().out


def test_a_layer_that_no_adapter_fits_is_refused_when_it_is_named(write_config, tmp_path):
    """Before anything is trained, not in the middle of a step."""
    path = write_config(tmp_path / "rows.jsonl", lora={"r": 4, "target_modules": ["router", "q_proj"]})
    with pytest.raises(BadConfig, match="router") as refused:
        LoraWeights().attach(families.model_of("llama4_text"), config_and_folders(path)[0], fuses=True)
    assert refused.value.where == "lora.target_modules"
