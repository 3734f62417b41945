"""What vLLM is given besides the model and its address: options and variables. What a request brings comes after these, and wins.

Nothing here is about the built-in engine, and nothing is started.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePath

import msgspec

from tunesmith.records import Deployment, ServedAdapter

MODULE = ("-m", "vllm.entrypoints.openai.api_server")
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that ``--max-lora-rank`` takes. Without it vLLM refuses adapters of a rank above 16."""
_LARGEST_CACHE = 4 * 1024**3
_SHARE_OF_MEMORY = 4
_CACHE_OPTIONS = ("--kv-cache-memory-bytes", "--gpu-memory-utilization")
"""Each says how much memory the cache may take."""
_TITLES_APART = {"SPT_NOENV": "1"}
"""vLLM's processes write titles over their environment, and with it over the mark by which they are found; not with this."""
_encode = msgspec.json.Encoder().encode


def options(deployment: Deployment) -> list[str]:
    """For a deployment without a GPU also what a CPU needs."""
    adapters = _adapter_options(deployment.adapters) if deployment.adapters else []
    on_cpu = [] if deployment.gpus else _cpu_options(deployment.arguments)
    # Health is asked for every two seconds: a line for each would be most of the log.
    return ["--disable-uvicorn-access-log", *on_cpu, *adapters]


def _adapter_options(adapters: tuple[ServedAdapter, ...]) -> list[str]:
    # As JSON, since in NAME=FOLDER the folder must have no comma.
    modules = [_encode({"name": one.name, "path": one.path}).decode() for one in adapters]
    rank = max(one.rank or 1 for one in adapters)
    # One that is higher than all of these is left to vLLM to refuse.
    fitting = next((one for one in _RANKS if one >= rank), rank)
    return ["--enable-lora", "--max-lora-rank", str(fitting), "--lora-modules", *modules]


def _cpu_options(given: tuple[str, ...]) -> list[str]:
    """Without them vLLM compiles for minutes, and reserves nearly all memory of the machine or does not start.

    In bfloat16 vLLM 0.32 answered wrongly on the one CPU with matrix units (AMX) that it was tried on, in float32 as transformers does.
    """
    chosen = ["--dtype", "float32", "--enforce-eager"]
    if any(word.partition("=")[0] in _CACHE_OPTIONS for word in given):
        return chosen
    cache = min(_LARGEST_CACHE, _memory_bytes() // _SHARE_OF_MEMORY)
    return [*chosen, "--kv-cache-memory-bytes", str(cache)]


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def variables(deployment: Deployment) -> Mapping[str, str]:
    """Nothing is reported to anybody, and where the model is a folder no hub is asked."""
    always = {"VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1", **_TITLES_APART}
    if PurePath(deployment.path).is_absolute():
        return {**always, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return always
