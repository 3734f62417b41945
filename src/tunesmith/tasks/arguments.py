"""Options as transformers' TrainingArguments and peft's LoraConfig spell them, as those of a recipe.

What the recipe knows by that name means the recipe's own option and is left alone; so is a name that nobody knows, which
whoever resolves the config refuses with the nearest right one. Nothing is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from tunesmith.errors import Fault
from tunesmith.recipes import Recipe
from tunesmith.recipes.suggest import described

_MODEL_NAMES = ("model_path", "model_name_or_path", "model")
_PRECISION = ("bf16", "fp16")
_LORA = "lora_config"


class Arguments(msgspec.Struct, frozen=True):
    """What a config says, in the recipe's words."""

    model: str | None
    options: dict[str, Any]
    """By name, or by dotted path where the name was another."""
    spelled: dict[str, str]
    """How the config spelled what is named by its path in ``options``."""
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]


class _Misfit(Exception):
    """A value with no equivalent: what is wrong with it, and how to fix it."""

    def __init__(self, message: str, mend: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


class _Spelling(NamedTuple):
    path: str
    read: Callable[[Any], Any] = lambda value: value


def read_arguments(config: Mapping[str, Any], recipe: Recipe) -> Arguments:
    """Translate ``config`` for ``recipe``; what cannot be translated is among the faults."""
    reader = _Reader(recipe)
    left = dict(config)
    model = reader.model(left)
    reader.precision(left)
    reader.lora(left)
    if left.get("warmup_ratio") is not None and not left.get("warmup_steps"):
        left.pop("warmup_steps", None)  # as TrainingArguments: the ratio counts where no steps are given
    elif left.get("warmup_steps") is not None:
        left.pop("warmup_ratio", None)
    for name, value in left.items():
        reader.take(name, value)
    return Arguments(model, reader.options, reader.spelled, tuple(reader.faults), tuple(reader.warnings))


class _Reader:
    """Reads one config for one recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.options: dict[str, Any] = {}
        self.spelled: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        self._recipe = recipe
        self._known = {*recipe.aliases, *recipe.config, *(path.rpartition(".")[2] for path in recipe.schema)}

    def model(self, left: dict[str, Any]) -> str | None:
        """The model that is named, under any of its names."""
        given = {name: left.pop(name) for name in _MODEL_NAMES if name in left and isinstance(left[name], str | None)}
        named = {value for value in given.values() if value}
        if len(named) > 1:
            self._fault("names another model than the others", next(iter(given)), f"keep one of {', '.join(given)}")
        wrong = [name for name in _MODEL_NAMES[:2] if name in left]
        for name in wrong:
            self._fault(f"must be text, not {described(left.pop(name))}", name, "name a model reference")
        return next(iter(named), None)

    def precision(self, left: dict[str, Any]) -> None:
        """``bf16`` and ``fp16`` mean mixed precision, which is what recipes do by themselves where the hardware is fast at it."""
        names = [name for name in _PRECISION if name in left and name not in self._known]
        if "model.dtype" not in self._recipe.schema or not names:
            return
        given = {name: left.pop(name) for name in names}
        for name, value in given.items():
            if not isinstance(value, bool | None):
                self._fault(f"must be true or false, not {described(value)}", name)
        if given.get("fp16") is True:
            self.warnings.append("fp16: computed in bfloat16 where the hardware is fast at it, else in float32")
        if any(name in left for name in ("dtype", "torch_dtype", "model.dtype")):
            return  # which says it more exactly
        if True in given.values():
            self._set("model.dtype", "auto", next(name for name in given if given[name] is True))
        elif False in given.values():
            self._set("model.dtype", "float32", next(name for name in given if given[name] is False))

    def lora(self, left: dict[str, Any]) -> None:
        """The section of an adapter, or what takes its place under names with a prefix."""
        if _LORA not in left or ("lora" not in self._recipe.config and _LORA in self._known):
            return
        content = left.pop(_LORA)
        if content is None:
            return
        if "lora" not in self._recipe.config:
            self._fault(f"recipe {self._recipe.name} trains no adapter", _LORA, 'leave it out, or use strategy "lora"')
        elif not isinstance(content, Mapping):
            self._fault(f"must be a mapping, not {described(content)}", _LORA, 'such as {"r": 8, "lora_alpha": 16}')
        else:
            inner = {
                name: value for name, value in content.items() if not self._is_fixed(name, value, f"{_LORA}.{name}")
            }
            if "target_modules" in inner:
                inner["target_modules"] = _modules(inner["target_modules"])
            self.options[_LORA if _LORA in self._known else "lora"] = inner

    def take(self, name: str, value: Any) -> None:
        """One option beside those."""
        spelling = _SPELLINGS.get(name)
        if name in self._known or "." in name:
            self.options[name] = _OWN_VALUES[name](value) if name in _OWN_VALUES else value
        elif spelling is not None and spelling.path in self._recipe.schema:
            if value is None:
                return  # TrainingArguments' way of saying nothing
            try:
                self._set(spelling.path, spelling.read(value), name)
            except _Misfit as misfit:
                self._fault(misfit.message, name, misfit.mend)
        elif name in _WITHOUT_EFFECT:
            self.warnings.append(f"{name} has no effect here")
        elif not self._is_fixed(name, value, name):
            self.options[name] = value

    def _is_fixed(self, name: str, value: Any, where: str) -> bool:
        """Whether it is an option that can only say what is done anyway; anything else it says is a fault."""
        if name not in _FIXED or name in self._known:
            return False
        allowed, mend = _FIXED[name]
        if value is not None and value not in allowed:
            shown = " or ".join(described(one) for one in allowed)
            self._fault(f"can only be {shown} here, not {described(value)}", where, mend)
        return True

    def _set(self, path: str, value: Any, name: str) -> None:
        self.options[path] = value
        self.spelled[path] = name

    def _fault(self, message: str, where: str, mend: str | None = None) -> None:
        self.faults.append(Fault(message=message, where=f"config.{where}", mend=mend))


def _ratio(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise _Misfit(f"must be a number from 0 to below 1, not {described(value)}", "name the share of all steps")
    return float(value)


def _when(value: Any) -> Any:
    return "never" if value in ("no", False) else value


def _dtype(value: Any) -> Any:
    return value.removeprefix("torch.") if isinstance(value, str) else value


def _train_on(value: Any) -> str:
    if not isinstance(value, bool):
        raise _Misfit(f"must be true or false, not {described(value)}")
    return "assistant" if value else "all"


def _modules(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _unless_negative(value: Any) -> Any:
    return None if isinstance(value, int | float) and value < 0 else value


_SPELLINGS: Mapping[str, _Spelling] = MappingProxyType(
    {
        "warmup_ratio": _Spelling("training.warmup_steps", _ratio),  # below 1 it is a share of all steps
        "model_max_length": _Spelling("data.max_length"),
        "max_seq_length": _Spelling("data.max_length"),
        "cutoff_len": _Spelling("data.max_length"),
        "eval_strategy": _Spelling("evaluation.strategy", _when),
        "evaluation_strategy": _Spelling("evaluation.strategy", _when),
        "eval_steps": _Spelling("evaluation.steps"),
        "torch_dtype": _Spelling("model.dtype", _dtype),
        "attn_implementation": _Spelling("model.attention"),
        "assistant_only_loss": _Spelling("data.train_on", _train_on),
        "completion_only_loss": _Spelling("data.train_on", _train_on),
        "lora_rank": _Spelling("lora.r"),
        "lora_target_modules": _Spelling("lora.target_modules", _modules),
    }
)
"""Names that recipes do not have, and the options they mean."""

_OWN_VALUES: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"max_steps": _unless_negative, "target_modules": _modules, "dtype": _dtype}
)
"""Names that recipes have, too, and values of theirs that recipes write otherwise: -1 steps are no limit."""

_FIXED: Mapping[str, tuple[tuple[Any, ...], str]] = MappingProxyType(
    {
        "report_to": (("none", [], ["none"]), "name a callback to be told"),
        "save_strategy": (("steps",), "set save_steps"),
        "logging_strategy": (("steps",), "set logging_steps"),
        "overwrite_output_dir": ((False,), "nothing is ever written over: name a new output_dir"),
        "push_to_hub": ((False,), "upload the finished model from output_dir"),
        "packing": ((False,), "leave it out: on a CPU rows are packed by themselves"),
        "load_in_4bit": ((False,), "leave it out"),
        "load_in_8bit": ((False,), "leave it out"),
        "bias": (("none",), "biases are not trained"),
        "task_type": (("CAUSAL_LM",), "causal language models are what is trained here"),
        "inference_mode": ((False,), "leave it out"),
        "use_dora": ((False,), "leave it out"),
        "use_rslora": ((False,), "leave it out"),
    }
)
"""Options that no recipe of ours has, with what they may say all the same, and the mend for anything else."""

_WITHOUT_EFFECT = frozenset(
    {
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_prefetch_factor",
        "ddp_find_unused_parameters",
        "disable_tqdm",
        "log_level",
        "logging_dir",
        "remove_unused_columns",
        "run_name",
    }
)
"""Options about the inside of another trainer: they change nothing about what is learned."""
