"""Loads tokenizers and models: safetensors only, and never code that comes with a model.

Which precision to compute in is decided here, from what the hardware does fast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tunesmith_workers.config import Attention, DType
from tunesmith_workers.faults import ModelUnavailable
from tunesmith_workers.hub import local_folder

_EAGER_IS_FASTER_BELOW = 192
"""Tokens. Measured on CPUs with bfloat16: torch's fused attention works in blocks that shorter rows do not fill."""


class Precision(msgspec.Struct, frozen=True):
    """How numbers are held and computed."""

    weights: torch.dtype
    autocast: bool
    """Whether products run in bfloat16 while the weights stay float32."""

    def __str__(self) -> str:
        name = str(self.weights).removeprefix("torch.")
        return f"{name} weights, bfloat16 products" if self.autocast else name


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_fast_bfloat16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def precision_for(wanted: DType, *, trains_weights: bool) -> Precision:
    """The precision that ``model.dtype`` means here.

    Weights that are trained stay float32 when left to us: a step of the optimizer is mostly smaller than the distance
    between two bfloat16 numbers, and would be lost. Frozen weights lose nothing that matters.
    """
    if wanted == "float32":
        return Precision(torch.float32, autocast=False)
    if wanted == "bfloat16":
        return Precision(torch.bfloat16, autocast=False)
    fast = has_fast_bfloat16()
    if trains_weights:
        return Precision(torch.float32, autocast=fast)
    return Precision(torch.bfloat16 if fast else torch.float32, autocast=False)


def named_attention(wanted: Attention) -> str | None:
    """The attention implementation that was asked for; None for what transformers chooses."""
    return None if wanted == "auto" else wanted


def attention_for(wanted: Attention, longest: int, precision: Precision) -> str | None:
    """The fastest attention implementation for rows of up to ``longest`` tokens; None for what transformers chooses.

    For some models, eager attention computes something else: whoever takes it compares the two (``verify``).
    """
    if wanted != "auto":
        return wanted
    on_cpu_in_bfloat16 = device() == "cpu" and (precision.autocast or precision.weights == torch.bfloat16)
    return "eager" if on_cpu_in_bfloat16 and longest < _EAGER_IS_FASTER_BELOW else None


def attention_of(model: Any) -> str:
    """The attention implementation that a loaded model has."""
    found: str = model.config._attn_implementation  # noqa: SLF001  # has no public name
    return found


def load_tokenizer(base: str, *, with_weights: bool = True) -> Any:
    """Load the tokenizer, able to pad. From the hub, the weights come along unless told otherwise.

    Raises:
        ModelUnavailable: there is none.
    """
    with _explained(base, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            local_folder(base, with_weights=with_weights), trust_remote_code=False
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(base: str, *, with_weights: bool = True) -> Any:
    """Load the model's config. From the hub, the weights come along unless told otherwise.

    Raises:
        ModelUnavailable: there is none.
    """
    with _explained(base, "config"):
        return AutoConfig.from_pretrained(local_folder(base, with_weights=with_weights), trust_remote_code=False)


def load_model(base: str, dtype: torch.dtype, attention: str | None) -> Any:
    """Load a causal language model from safetensors. Without ``attention``: sdpa where the model can, eager otherwise.

    Raises:
        ModelUnavailable: it is missing, incomplete, needs code of its own, or the hub cannot be reached.
    """
    with _explained(base, "model"):
        return AutoModelForCausalLM.from_pretrained(
            local_folder(base),
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
        )


def load_for_inference(base: str, dtype: DType, attention: Attention) -> Any:
    """Load a whole model, or an adapter on the base that it names, ready to answer.

    Raises:
        ModelUnavailable: the model, or the adapter's base, cannot be loaded.
    """
    precision = precision_for(dtype, trains_weights=False)
    chosen = named_attention(attention)
    adapter = Path(base) / "adapter_config.json"
    if not adapter.is_file():
        model = load_model(base, precision.weights, chosen)
    else:
        from peft import LoraConfig, PeftConfig, PeftModel  # noqa: PLC0415  # slow to import; only adapters need it

        from tunesmith_workers.fused_lora import use_fused_layers  # noqa: PLC0415  # likewise

        model = load_model(_base_of(adapter), precision.weights, chosen)
        with _explained(base, "adapter"):
            config = PeftConfig.from_pretrained(base)
            if isinstance(config, LoraConfig):
                config = use_fused_layers(config)
            model = PeftModel.from_pretrained(model, base, config=config)
        model.generation_config = load_generation_config(base)
    return model.eval().to(device())


def _base_of(adapter: Path) -> str:
    try:
        found = msgspec.json.decode(adapter.read_bytes(), type=dict[str, Any]).get("base_model_name_or_path")
    except (OSError, msgspec.DecodeError) as error:
        raise ModelUnavailable(f"cannot be read: {error}", where=str(adapter), mend="train it again") from error
    if not isinstance(found, str) or not found:
        raise ModelUnavailable(
            "does not name the model it adapts", where=str(adapter), mend="set base_model_name_or_path in it"
        )
    return found


def load_generation_config(base: str) -> Any:
    """The model's generation defaults; plain ones where it has none."""
    try:
        return GenerationConfig.from_pretrained(local_folder(base))
    except (OSError, ValueError):
        return GenerationConfig()  # type: ignore[no-untyped-call]  # transformers leaves it untyped


def longest_context(config: Any) -> int | None:
    """How many tokens the model can read at once, where its config says so."""
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


@contextlib.contextmanager
def _explained(base: str, part: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, StrictDataclassError) as error:
        raise _fault(base, part, error) from error


def _fault(base: str, part: str, error: Exception) -> ModelUnavailable:
    text = " ".join(str(error).split())
    mend = "check that the folder holds config.json, the tokenizer's files and *.safetensors"
    if "attention implementation" in text or "attn_implementation" in text:
        mend = "set model.attention to auto, or to eager, which every model has"
    elif "trust_remote_code" in text or "custom code" in text:
        mend = "models that need code of their own are not run; choose an architecture that transformers knows"
    return ModelUnavailable(f"the {part} cannot be loaded: {text[:400]}", where=base, mend=mend)
