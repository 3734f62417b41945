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
from tunesmith.deployments import vllm
from tunesmith.errors import InvalidInput
from tunesmith.records import Deployment, EngineKind
from tunesmith.runner import Launch

EngineChoice = Literal["auto", "vllm", "transformers"]

_BUILT_IN = ("-m", "tunesmith_workers.programs.serve")
_HOST = "127.0.0.1"
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
        start = (self._vllm_command or (self._python, *vllm.MODULE)) if is_vllm else (self._python, *_BUILT_IN)
        served = ("--host", _HOST, "--port", str(deployment.port), "--served-model-name", name_of(deployment.path))
        adapters = [word for one in deployment.adapters for word in ("--adapter", f"{one.name}={one.path}")]
        more = vllm.options(deployment) if is_vllm else adapters
        return (*start, "--model", deployment.path, *served, *more, *deployment.arguments)

    def launch(self, deployment: Deployment, folder: str, log: str) -> Launch:
        """What starts it. Nothing that lies in its working folder can be imported."""
        return Launch(argv=deployment.command, cwd=folder, log=log, env=_environment(deployment))


def _environment(deployment: Deployment) -> Mapping[str, str]:
    return {
        environment.RUN_ID: deployment.id,
        "CUDA_VISIBLE_DEVICES": ",".join(deployment.gpus),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        **(vllm.variables(deployment) if deployment.engine is EngineKind.VLLM else {}),
    }


def name_of(path: str) -> str:
    """What requests to an engine call a model: the same for the same folder or hub id, whatever it was referred to by."""
    readable = ".".join(part.strip("._-") for part in map(_safe, PurePath(path).parts[-2:]) if part.strip("._-"))
    return f"{readable[-_LONGEST_READABLE:].strip('._-') or 'model'}-{hashlib.sha256(path.encode(errors='replace')).hexdigest()[:12]}"


def _safe(part: str) -> str:
    return _UNSAFE.sub("-", part)
