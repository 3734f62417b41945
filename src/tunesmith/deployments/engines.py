"""The engines that serve: which of them a deployment gets, and the exact command that starts it. Starts nothing."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import PurePath
from typing import Literal

from tunesmith.contract import environment
from tunesmith.errors import InvalidInput
from tunesmith.records import Deployment, EngineKind
from tunesmith.runner import Launch

EngineChoice = Literal["auto", "vllm", "transformers"]

_BUILT_IN = ("-m", "tunesmith_workers.programs.serve")
_VLLM = ("-m", "vllm.entrypoints.openai.api_server")
_HOST = "127.0.0.1"
_USUAL_RANK, _RANKS = 16, (32, 64, 128, 256, 320, 512)
"""What vLLM has room for without being told, and what it can be told."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_READABLE = 60


class Engines:
    """What can be started on this machine."""

    def __init__(
        self,
        *,
        vllm_command: str,
        has_gpu: bool,
        has_vllm: Callable[[], bool] = lambda: find_spec("vllm") is not None,
        python: str = sys.executable,
    ) -> None:
        self._vllm_command = tuple(shlex.split(vllm_command))
        self._has_gpu = has_gpu
        self._has_vllm = has_vllm
        self._python = python

    def choose(self, wanted: EngineChoice) -> EngineKind:
        """The engine for a deployment that wants this one.

        Raises:
            InvalidInput: vLLM is wanted and not there.
        """
        has_vllm = bool(self._vllm_command) or self._has_vllm()
        if wanted == "vllm" and not has_vllm:
            raise InvalidInput(
                "vLLM is not installed where the service runs",
                where="engine",
                mend="install it there, or set vllm_command to how it is started, or ask for the engine transformers",
            )
        if wanted == "auto":
            return EngineKind.VLLM if has_vllm and self._has_gpu else EngineKind.TRANSFORMERS
        return EngineKind(wanted)

    def command(self, deployment: Deployment) -> tuple[str, ...]:
        """The argument list. Every adapter has a name of its own beside its base's."""
        is_vllm = deployment.engine is EngineKind.VLLM
        start = (self._vllm_command or (self._python, *_VLLM)) if is_vllm else (self._python, *_BUILT_IN)
        served = ("--host", _HOST, "--port", str(deployment.port), "--served-model-name", name_of(deployment.path))
        named = [f"{adapter.name}={adapter.path}" for adapter in deployment.adapters]
        if is_vllm:
            adapters = ["--enable-lora", *_room_for(deployment), "--lora-modules", *named] if named else []
        else:
            adapters = [word for one in named for word in ("--adapter", one)]
        return (*start, "--model", deployment.path, *served, *adapters, *deployment.arguments)

    def launch(self, deployment: Deployment, folder: str, log: str) -> Launch:
        """What starts it. Nothing that lies in its working folder can be imported."""
        return Launch(argv=deployment.command, cwd=folder, log=log, env=_environment(deployment))


def _room_for(deployment: Deployment) -> list[str]:
    """The rank up to which vLLM loads adapters, told beforehand. What a request says comes later in the command and wins."""
    rank = max((adapter.rank or 0 for adapter in deployment.adapters), default=0)
    enough = next((one for one in _RANKS if one >= rank), _RANKS[-1])
    return ["--max-lora-rank", str(enough)] if rank > _USUAL_RANK else []


def _environment(deployment: Deployment) -> Mapping[str, str]:
    return {
        environment.RUN_ID: deployment.id,
        "CUDA_VISIBLE_DEVICES": ",".join(deployment.gpus),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }


def name_of(path: str) -> str:
    """What requests to an engine call a model: the same for the same folder or hub id, whatever it was referred to by."""
    readable = ".".join(part.strip("._-") for part in map(_safe, PurePath(path).parts[-2:]) if part.strip("._-"))
    return f"{readable[-_LONGEST_READABLE:].strip('._-') or 'model'}-{hashlib.sha256(path.encode(errors='replace')).hexdigest()[:12]}"


def _safe(part: str) -> str:
    return _UNSAFE.sub("-", part)
