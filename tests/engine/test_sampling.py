"""Tokens are drawn as often as the model says, and never when they were excluded."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tunesmith_workers.engine.sampling import Chooser, Sampling, choose

LOGITS = torch.log(torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03]))


def drawn(sampling: Sampling, times: int = 4000, allowed: torch.Tensor | None = None) -> dict[int, float]:
    """How often each token comes."""
    choosers = [Chooser(sampling, number) for number in range(times)]
    for chooser in choosers:
        chooser.allowed = allowed
    counted = Counter(one.token for one in choose(LOGITS.expand(times, -1), choosers))
    return {token: count / times for token, count in counted.items()}


def test_tokens_come_as_often_as_they_are_likely():
    found = drawn(Sampling(seed=1))
    for token, probability in enumerate(LOGITS.exp().tolist()):
        assert found[token] == pytest.approx(probability, abs=0.03)


def test_temperature_flattens():
    found = drawn(Sampling(seed=1, temperature=2.0))
    expected = torch.softmax(LOGITS / 2, -1).tolist()
    assert [found[token] for token in range(5)] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(seed=1, top_k=2), {0, 1}),
        (Sampling(seed=1, top_p=0.5), {0}),
        (Sampling(seed=1, top_p=0.51), {0, 1}),
        (Sampling(seed=1, top_p=0.8), {0, 1, 2}),
        (Sampling(seed=1, top_p=0.8, top_k=1), {0}),
        (Sampling(seed=1, logit_bias={0: -100, 1: -100}), {2, 3, 4}),
    ],
    ids=["top_k", "top_p exactly", "top_p just over", "top_p", "both", "bias"],
)
def test_what_is_cut_off_never_comes(sampling, kept):
    found = drawn(sampling)
    assert set(found) == kept
    total = sum(float(LOGITS[token].exp()) for token in kept)
    for token in kept:
        assert found[token] == pytest.approx(float(LOGITS[token].exp()) / total, abs=0.03)


def test_what_is_not_allowed_never_comes():
    allowed = torch.tensor([False, True, False, False, True])
    assert set(drawn(Sampling(seed=1), allowed=allowed)) == {1, 4}
    assert set(drawn(Sampling(temperature=0), times=3, allowed=allowed)) == {1}


def test_rows_of_one_step_are_chosen_each_in_its_own_way():
    ways = [
        Sampling(temperature=0),
        Sampling(top_k=1),
        Sampling(logit_bias={3: 100}),
        Sampling(temperature=0, top_logprobs=2),
    ]
    found = choose(LOGITS.expand(4, -1), [Chooser(way) for way in ways])
    assert [one.token for one in found] == [0, 0, 3, 0]
    assert [one.logprob is None for one in found] == [True, True, True, False]
    assert [token for token, _ in found[3].top] == [0, 1]
    assert found[3].logprob == pytest.approx(float(LOGITS[0]), abs=1e-5)


def test_penalties_count_what_was_said():
    chooser = Chooser(Sampling(temperature=0, frequency_penalty=0.5, presence_penalty=0.25))
    said = [choose(LOGITS[None], [chooser])[0].token for _ in range(3)]
    assert said[0] == 0
    assert said[1] == 1  # 0.5 - (0.5 + 0.25) of log probability is less than that of the second
    assert Counter(said) == chooser.said


def test_more_tokens_than_are_looked_at_first_may_be_needed():
    """Top-p of an even distribution takes in far more than the first few hundred."""
    logits = torch.zeros(300, 5000)
    found = {
        one.token for one in choose(logits, [Chooser(Sampling(seed=2, top_p=0.9), number) for number in range(300)])
    }
    assert len(found) > 250
