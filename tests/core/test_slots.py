"""Slots: a GPU is never leased twice, CPU runs keep to their number, what is alive counts whatever the limits say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import InvalidInput
from tunesmith.runner import Demand, Gpu, Slots

GPUS = (
    Gpu(id="GPU-a", name="NVIDIA A100-SXM4-80GB", memory_bytes=80 << 30),
    Gpu(id="GPU-b", name="NVIDIA A100-SXM4-80GB", memory_bytes=80 << 30),
    Gpu(id="GPU-c", name="NVIDIA L4", memory_bytes=24 << 30),
)


def test_gpus_are_leased_exclusively():
    """Two runs never share a GPU; one that is given back can be leased again."""
    slots = Slots(GPUS, max_cpu_runs=1)
    assert slots.take("one", Demand(gpus=2)) == ("GPU-a", "GPU-b")
    assert slots.take("two", Demand(gpus=2)) is None
    assert slots.take("three", Demand(gpus=1)) == ("GPU-c",)
    slots.release("one")
    assert slots.take("two", Demand(gpus=2)) == ("GPU-a", "GPU-b")


def test_the_type_of_gpu_is_kept_to():
    """A run that asks for a type gets that type or waits; part of the name in any case is enough."""
    slots = Slots(GPUS, max_cpu_runs=1)
    assert slots.take("one", Demand(gpus=1, gpu_type="l4")) == ("GPU-c",)
    assert slots.take("two", Demand(gpus=1, gpu_type="L4")) is None
    assert slots.take("three", Demand(gpus=1, gpu_type="a100")) == ("GPU-a",)


@pytest.mark.parametrize("demand", [Demand(gpus=4), Demand(gpus=2, gpu_type="L4"), Demand(gpus=1, gpu_type="H100")])
def test_what_can_never_be_granted_is_refused(demand):
    """A run that would wait for ever is refused at once, with what there is."""
    with pytest.raises(InvalidInput) as refused:
        Slots(GPUS, max_cpu_runs=1).check(demand)
    assert "NVIDIA L4" in refused.value.message
    assert refused.value.where == "resources.count"


def test_cpu_runs_keep_to_their_number():
    """The limit holds for runs without a GPU only, and a living run counts even beyond it."""
    slots = Slots(GPUS, max_cpu_runs=1)
    slots.adopt("alive", ())
    slots.adopt("alive too", ())
    assert slots.cpu_runs == 2
    assert slots.take("next", Demand(gpus=0)) is None
    assert slots.take("on a GPU", Demand(gpus=1)) is not None
    slots.release("alive")
    slots.release("alive too")
    assert slots.take("next", Demand(gpus=0)) == ()


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-1, 3)), max_size=40))
def test_no_order_of_requests_leases_anything_twice(steps):
    """Taking and releasing in any order: every GPU has one holder at most, and the counts are right."""
    slots = Slots(GPUS, max_cpu_runs=2)
    held: dict[str, tuple[str, ...]] = {}
    for run_id, wanted in steps:
        if wanted < 0:
            slots.release(run_id)
            held.pop(run_id, None)
        elif run_id not in held:
            got = slots.take(run_id, Demand(gpus=wanted))
            if got is not None:
                held[run_id] = got
        leased = [gpu for gpus in held.values() for gpu in gpus]
        assert len(set(leased)) == len(leased)
        assert slots.leased_gpus == set(leased)
        assert slots.cpu_runs == sum(not gpus for gpus in held.values()) <= 2
