"""The arguments of an engine that a request may bring: tuning, and nothing that names a file, a host or code.

What is not on the list of the engine is refused; an operator adds to it with the setting ``allowed_engine_args``. Arguments
never meet a shell.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from tunesmith.errors import Fault, InvalidInput
from tunesmith.recipes.suggest import nearest, shortened
from tunesmith.records import EngineKind

_MOST = 100
_LONGEST = 1000
_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
"""What argparse takes for a value although it begins with a dash."""

Takes = Mapping[str, bool]
"""By the name of an option: whether it takes a value."""

_BOTH = {"max-model-len": True, "max-num-seqs": True, "max-num-batched-tokens": True, "dtype": True}
ALLOWED: Mapping[EngineKind, Takes] = MappingProxyType(
    {
        EngineKind.TRANSFORMERS: {
            **_BOTH,
            "max-queue": True,
            "num-speculative-tokens": True,
            "accelerate": True,
        },
        EngineKind.VLLM: {
            **_BOTH,
            "seed": True,
            "max-logprobs": True,
            "gpu-memory-utilization": True,
            "kv-cache-memory-bytes": True,
            "kv-cache-dtype": True,
            "block-size": True,
            "swap-space": True,
            "cpu-offload-gb": True,
            "quantization": True,
            "tensor-parallel-size": True,
            "pipeline-parallel-size": True,
            "max-lora-rank": True,
            "max-loras": True,
            "max-cpu-loras": True,
            "scheduling-policy": True,
            "tool-call-parser": True,
            "reasoning-parser": True,
            "enforce-eager": False,
            "no-enforce-eager": False,
            "enable-prefix-caching": False,
            "no-enable-prefix-caching": False,
            "enable-chunked-prefill": False,
            "no-enable-chunked-prefill": False,
            "enable-auto-tool-choice": False,
            "disable-log-stats": False,
            "disable-log-requests": False,
            "disable-sliding-window": False,
            "disable-cascade-attn": False,
        },
    }
)


class EngineArguments:
    """Splits and checks what requests bring."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        """``more`` are the operator's: the name of an option, with ``=`` after it if it takes a value."""
        added = {_name(one.removesuffix("=").lstrip("-")): one.endswith("=") for one in more}
        self._allowed: Mapping[EngineKind, Takes] = {kind: {**takes, **added} for kind, takes in ALLOWED.items()}

    def split(self, given: str | Sequence[str], engine: EngineKind) -> tuple[str, ...]:
        """The arguments as the engine gets them: ``--name value``, dashes for underscores.

        Raises:
            InvalidInput: every one that is not allowed, with the nearest that is.
        """
        reading = _Reading(self._allowed[engine], engine)
        for word in _words(given):
            reading.take(word)
        faults = reading.end()
        if faults:
            raise InvalidInput("the engine cannot be given these arguments", where="extra_args", faults=faults)
        return tuple(reading.checked)


class _Reading:
    """One list of arguments, word by word."""

    def __init__(self, takes: Takes, engine: EngineKind) -> None:
        self.checked: list[str] = []
        self._takes = takes
        self._engine = engine
        self._faults: list[Fault] = []
        self._waiting: str | None = None
        """The option that the next word is the value of."""
        self._refused = False
        """Whether the word before was refused: what follows is most likely its value."""

    def take(self, word: str) -> None:
        if self._waiting is not None and _is_value(word):
            self.checked.append(word)
            self._waiting = None
        elif not (self._refused and _is_value(word)):
            self._without_value()
            self._option(word)
            return
        self._refused = False

    def end(self) -> tuple[Fault, ...]:
        self._without_value()
        return tuple(self._faults)

    def _option(self, word: str) -> None:
        written, equals, value = word.partition("=")
        fault = _option_fault(written, bool(equals), self._takes, self._engine)
        self._refused = fault is not None
        if fault is not None:
            self._faults.append(fault)
            return
        option = f"--{_name(written[2:])}"
        self.checked.append(f"{option}={value}" if equals else option)
        self._waiting = option if self._takes[option[2:]] and not equals else None

    def _without_value(self) -> None:
        if self._waiting is not None:
            mend = f"write {self._waiting} VALUE"
            self._faults.append(Fault(message=f"{self._waiting} has no value", where="extra_args", mend=mend))
            self._waiting = None


def _words(given: str | Sequence[str]) -> list[str]:
    try:
        words = shlex.split(given) if isinstance(given, str) else list(given)
    except ValueError as error:
        raise InvalidInput(
            f"cannot be split into words: {error}", where="extra_args", mend="close every quote, as in a shell"
        ) from None
    if len(words) > _MOST:
        raise InvalidInput(f"has {len(words)} words, more than {_MOST}", where="extra_args", mend="give fewer")
    faults = [
        Fault(message=f"{shortened(word)!r} is too long, or holds control characters", where="extra_args")
        for word in words
        if len(word) > _LONGEST or not word.isprintable()
    ]
    if faults:
        raise InvalidInput(
            "the engine cannot be given these arguments",
            where="extra_args",
            mend=f"give words of at most {_LONGEST} printable characters",
            faults=tuple(faults),
        )
    return words


def _option_fault(word: str, has_value: bool, takes: Takes, engine: EngineKind) -> Fault | None:  # noqa: FBT001  # of one word
    name = _name(word.removeprefix("--"))
    if not word.startswith("--") or not name:
        return Fault(
            message=f"{shortened(word)!r} is neither an option, which begins with --, nor the value of one",
            where="extra_args",
            mend="write --name value or --name=value",
        )
    if name not in takes:
        close = nearest(name, takes)
        mend = f"did you mean --{close}? " if close else ""
        allowed = ", ".join(sorted(takes))
        return Fault(
            message=f"{shortened(word)!r} is not an option that a request may give the engine {engine}",
            where="extra_args",
            mend=f"{mend}allowed: {allowed}; the setting allowed_engine_args adds more",
        )
    if has_value and not takes[name]:
        return Fault(message=f"--{name} takes no value", where="extra_args", mend=f"write --{name}")
    return None


def _is_value(word: str) -> bool:
    return not word.startswith("-") or _NUMBER.fullmatch(word) is not None


def _name(written: str) -> str:
    return written.replace("_", "-")
