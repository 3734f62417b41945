"""What vLLM is given besides a model: adapters it can take, what a CPU needs, and nothing that reports to anybody."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.deployments import vllm
from tunesmith.records import Deployment, EngineKind, ServedAdapter
from tunesmith.references.model_folders import AdapterConfig

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def deployment(**fields) -> Deployment:
    made = {
        "id": "dep_1",
        "model_path": "small",
        "created_at": datetime(2026, 12, 1, tzinfo=UTC),
        "path": "/models/small",
        "served_name": "small",
        "engine": EngineKind.VLLM,
        "port": 20_000,
        "command": (),
    }
    return Deployment(**{**made, **fields})


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_on_a_gpu_vllm_decides_for_itself():
    """What only a CPU needs is not given."""
    assert vllm.options(deployment(gpus=("GPU-1",))) == ["--disable-uvicorn-access-log"]


def test_on_a_cpu_it_takes_a_part_of_the_memory():
    """Not nearly all of it, as by itself."""
    words = vllm.options(deployment())
    assert after(words, "--dtype") == "float32"
    assert "--enforce-eager" in words
    assert 0 < int(after(words, "--kv-cache-memory-bytes")) <= 4 * 1024**3


@pytest.mark.parametrize(
    "said", ["--gpu-memory-utilization=0.5", "--gpu-memory-utilization", "--kv-cache-memory-bytes"]
)
def test_whoever_says_how_much_memory_it_takes_is_not_contradicted(said):
    """One of the options for that excludes ours."""
    assert "--kv-cache-memory-bytes" not in vllm.options(deployment(arguments=(said, "1")))


@given(st.lists(st.none() | st.integers(1, 512), min_size=1, max_size=4))
def test_adapters_of_any_rank_are_taken(ranks):
    """The least of vLLM's limits that fits them all; a folder may have any name."""
    adapters = tuple(
        ServedAdapter(name=f"a{number}", path=f"/a=b,c{number}", rank=rank) for number, rank in enumerate(ranks)
    )
    words = vllm.options(deployment(adapters=adapters, gpus=("GPU-1",)))
    limit, needed = int(after(words, "--max-lora-rank")), max(rank or 1 for rank in ranks)
    assert limit == min(one for one in RANKS if one >= needed)
    given_modules = [json.loads(word) for word in words[words.index("--lora-modules") + 1 :]]
    assert given_modules == [{"name": one.name, "path": one.path} for one in adapters]


def test_a_hub_is_asked_for_hub_ids_alone():
    """And statistics are sent for neither."""
    folder, hub = vllm.variables(deployment()), vllm.variables(deployment(path="org/model"))
    assert folder["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in hub
    for found in (folder, hub):
        assert (found["VLLM_NO_USAGE_STATS"], found["DO_NOT_TRACK"]) == ("1", "1")


@pytest.mark.parametrize(
    ("config", "rank"),
    [
        ({"r": 8}, 8),
        ({"r": 8, "rank_pattern": {"q_proj": 64, "k_proj": 4}}, 64),
        ({"r": 8, "rank_pattern": None}, 8),
        ({}, None),
    ],
)
def test_the_rank_of_an_adapter(config, rank):
    """The largest of its layers; what does not say is left to the engine."""
    assert msgspec.convert(config, AdapterConfig).rank == rank
