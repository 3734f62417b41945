"""The sum of cross entropies, a few rows at a time: torch's own numbers, for any number of rows."""

from __future__ import annotations

import pytest
import torch

from tunesmith_workers.objectives.cross_entropy import summed_cross_entropy


@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 10), (700, 1000), (7, 300_000)])
def test_it_is_torchs_own(rows, vocabulary):
    """Also where many rows are looked at in parts, and where a single row is longer than a part."""
    torch.manual_seed(0)
    logits = (torch.randn(rows, vocabulary) * 5).requires_grad_()
    targets = torch.randint(0, vocabulary, (rows,))
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(expected / 3, logits)
    found = summed_cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(found / 3, logits)
    # How exact torch's float32 is depends on the processor's vector instructions.
    in_float32 = torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    most = max(1e-6 * expected.item(), 1.5 * abs(in_float32 - expected.item()))
    assert found.item() == pytest.approx(expected.item(), abs=most)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-7)


def test_bfloat16_is_computed_in_float32():
    """The loss has all digits that the logits allow; the gradient comes in their dtype."""
    torch.manual_seed(0)
    logits = (torch.randn(50, 5000) * 5).bfloat16().requires_grad_()
    targets = torch.randint(0, 5000, (50,))
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    found = summed_cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(found, logits)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient, expected_gradient, rtol=0.01, atol=1e-6)


def test_a_wrong_answer_without_any_chance_has_a_finite_loss():
    """Its probability is too small for a float; its logarithm is not."""
    logits = torch.tensor([[500.0, -500.0]], requires_grad=True)
    found = summed_cross_entropy(logits, torch.tensor([1]))
    found.backward()
    assert found.item() == 1000
    assert logits.grad.tolist() == [[1, -1]]


def test_without_gradients_none_are_made():
    """As when a validation set is scored."""
    with torch.no_grad():
        assert not summed_cross_entropy(torch.zeros(4, 10), torch.zeros(4, dtype=torch.long)).requires_grad


def test_its_gradient_cannot_be_asked_for_twice():
    """It is handed out where it was made; a second time would give something else, so that is an error."""
    logits = torch.randn(3, 5, requires_grad=True)
    total = summed_cross_entropy(logits, torch.tensor([0, 1, 2]))
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="a second time"):
        total.backward()
