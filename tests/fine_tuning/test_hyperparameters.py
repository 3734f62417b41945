"""What "auto" becomes: the rule that the docs tell, with its figures."""

from __future__ import annotations

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from tunesmith.openai.hyperparameters import (
    ACCUMULATION,
    BATCH,
    EPOCHS,
    LEARNING_RATE,
    LOGGING_STEPS,
    SAVE_STEPS,
    Basis,
    Requested,
    choose,
    chosen_in,
    given,
    size_factor,
)

DEFAULTS = {EPOCHS: 3.0, BATCH: 8, ACCUMULATION: 1, LEARNING_RATE: 0.0002, SAVE_STEPS: 500, LOGGING_STEPS: 5}


def basis(rows: int, parameters: int | None = 7_000_000_000) -> Basis:
    return Basis(rows=rows, parameters=parameters, batch=8, part=8, learning_rate=0.0002)


@pytest.mark.parametrize(
    ("rows", "epochs"), [(1, 25), (10, 10), (33, 3), (34, 3), (400, 3), (8_333, 3), (8_334, 2), (20_000, 1), (10**6, 1)]
)
def test_epochs_follow_the_number_of_rows(rows, epochs):
    assert choose(Requested(), basis(rows), DEFAULTS, set())[EPOCHS] == epochs


@pytest.mark.parametrize(
    ("rows", "batch"), [(1, 1), (31, 1), (32, 2), (80, 4), (128, 8), (8_000, 8), (8_001, 16), (10**6, 64)]
)
def test_batches_give_an_epoch_between_sixteen_and_a_thousand_steps(rows, batch):
    values = choose(Requested(), basis(rows), DEFAULTS, set())
    assert values[BATCH] * values[ACCUMULATION] == batch
    assert values[BATCH] <= 8  # what fits the memory of the recipe's own batch


@pytest.mark.parametrize(
    ("parameters", "factor"),
    [(None, 1.0), (7 * 10**9, 1.0), (134_515_008, 4.859), (10**6, 5.0), (70 * 10**9, 0.398), (10**13, 0.25)],
)
def test_small_models_take_larger_steps(parameters, factor):
    assert size_factor(parameters) == pytest.approx(factor, abs=0.001)


def test_the_multiplier_means_the_same_whoever_chose_it():
    """What was answered for auto, sent back as a number, gives the same training."""
    by_rule = {**DEFAULTS, **choose(Requested(), basis(80), DEFAULTS, set())}
    chosen = chosen_in(by_rule, basis(80))
    asked = Requested(
        n_epochs=chosen.n_epochs,
        batch_size=chosen.batch_size,
        learning_rate_multiplier=chosen.learning_rate_multiplier,
    )
    start = {**DEFAULTS, **given(asked, 8)}
    again = {**start, **choose(asked, basis(80), start, set(given(asked, 8)))}
    assert again == pytest.approx(by_rule, rel=1e-3)


def test_what_somebody_has_set_stays():
    config = {**DEFAULTS, LEARNING_RATE: 0.7, BATCH: 3}
    values = choose(Requested(), basis(400), config, {LEARNING_RATE, BATCH})
    assert not {LEARNING_RATE, BATCH, ACCUMULATION} & set(values)
    assert values[SAVE_STEPS] == 134  # 400 rows by three


@for_all(rows=st.integers(1, 10**7), batch=st.integers(1, 5000), usual=st.integers(1, 64))
def test_a_batch_is_kept_exactly_however_it_is_split(rows, batch, usual):
    values = given(Requested(batch_size=batch), usual)
    assert values[BATCH] * values[ACCUMULATION] == batch
    assert 1 <= values[BATCH] <= usual
    found = choose(
        Requested(), Basis(rows=rows, parameters=None, batch=usual, part=usual, learning_rate=0.1), DEFAULTS, set()
    )
    assert found[BATCH] * found[ACCUMULATION] >= 1
    assert 1 <= found[EPOCHS] <= 100
    assert found[SAVE_STEPS] >= 1


def test_parts_are_no_larger_than_what_the_recipe_computes_at_a_time():
    """A recipe that accumulates does so for want of memory."""
    accumulating = Basis(rows=400, parameters=None, batch=16, part=1, learning_rate=0.1)
    config = {**DEFAULTS, BATCH: 1, ACCUMULATION: 16}
    values = choose(Requested(), accumulating, config, set())
    assert (values[BATCH], values[ACCUMULATION]) == (1, 16)


@pytest.mark.parametrize("asked", [1e-5, 0.00123456, 1.87])
def test_a_multiplier_is_answered_as_it_was_given_however_small(asked):
    values = choose(Requested(learning_rate_multiplier=asked), basis(1000), DEFAULTS, set())
    assert chosen_in({**DEFAULTS, **values}, basis(1000)).learning_rate_multiplier == pytest.approx(asked, rel=1e-4)
