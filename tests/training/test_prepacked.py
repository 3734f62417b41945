"""Faster ways through frozen weights: the numbers of the plain way, and the plain way wherever something is different."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from training_parts import SIZES, orders_bfloat16

from tunesmith_workers.cpu.fused_norm import fuse_norms
from tunesmith_workers.cpu.prepacked import PrepackedWeight, can_prepack

needs_ordering = pytest.mark.skipif(not orders_bfloat16(), reason="this CPU, or this build of torch, orders no weights")


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@needs_ordering
def test_an_ordered_weight_computes_what_the_weight_does():
    """Both ways, with and without a bias, for any number of rows, as exactly as bfloat16 allows."""
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 32).bfloat16(), torch.randn(48).bfloat16()
    assert can_prepack(weight)
    ordered = PrepackedWeight(weight)
    for rows in (1, 7, 300):
        x, gradient = torch.randn(rows, 32).bfloat16(), torch.randn(rows, 48).bfloat16()
        assert error(ordered.forward(x, None), x.double() @ weight.double().t()) < 0.005
        assert error(ordered.forward(x, bias), x.double() @ weight.double().t() + bias.double()) < 0.005
        assert error(ordered.backward(gradient), gradient.double() @ weight.double()) < 0.005


def test_what_is_trained_or_exact_is_not_ordered():
    """A trained weight changes in every step; float32 is asked for by those who want its digits."""
    assert not can_prepack(torch.randn(8, 8).bfloat16().requires_grad_())
    assert not can_prepack(torch.randn(8, 8))


@pytest.fixture
def norm():
    torch.manual_seed(0)
    norm = transformers.models.llama.modeling_llama.LlamaRMSNorm(64).bfloat16().requires_grad_(requires_grad=False)
    norm.weight.copy_(torch.randn(64))
    return norm


def test_a_quickened_norm_is_as_exact_as_it_was(norm):
    """Forward and backward, against float64."""
    plain = copy.deepcopy(norm)
    assert fuse_norms(norm) == 1
    x, gradient = torch.randn(3, 5, 64).bfloat16(), torch.randn(3, 5, 64).bfloat16()
    given = x.double().requires_grad_()
    exact = given * (given.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt() * norm.weight.double()
    (exact_gradient,) = torch.autograd.grad(exact, given, gradient.double())
    errors = []
    for module in (plain, norm):
        given = x.clone().requires_grad_()
        found = module(given)
        (found_gradient,) = torch.autograd.grad(found, given, gradient)
        errors.append((error(found.detach(), exact.detach()), error(found_gradient, exact_gradient)))
    (forward, backward), (our_forward, our_backward) = errors
    assert our_forward <= forward * 1.05
    assert our_backward <= backward * 1.05


def test_norms_that_are_trained_or_different_stay_as_they_are(norm):
    """A trained weight needs a gradient, float32 loses nothing, and Gemma adds one to its weight."""
    assert fuse_norms(copy.deepcopy(norm).requires_grad_()) == 0
    assert fuse_norms(copy.deepcopy(norm).float()) == 0
    gemma = transformers.AutoModelForCausalLM.from_config(transformers.Gemma2Config(**SIZES, head_dim=8))
    assert fuse_norms(gemma.bfloat16().requires_grad_(requires_grad=False)) == 0
