"""A trained model ready to answer: a whole one, or an adapter on the base that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.models.loading import explained, load_generation_config, load_model, named_attention
from tunesmith_workers.models.precision import device, precision_for
from tunesmith_workers.process.config import Attention, DType
from tunesmith_workers.process.faults import ModelUnavailable


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

        from tunesmith_workers.weights.fused_lora import use_fused_layers  # noqa: PLC0415  # likewise

        model = load_model(base_of(adapter), precision.weights, chosen)
        with explained(base, "adapter"):
            config = PeftConfig.from_pretrained(base)
            if isinstance(config, LoraConfig):
                config = use_fused_layers(config)
            model = PeftModel.from_pretrained(model, base, config=config)
        model.generation_config = load_generation_config(base)
    return model.eval().to(device())


def base_of(adapter: Path) -> str:
    """The model that an adapter belongs to, as its adapter_config.json names it. Raises ModelUnavailable."""
    try:
        found = msgspec.json.decode(adapter.read_bytes(), type=dict[str, Any]).get("base_model_name_or_path")
    except (OSError, msgspec.DecodeError) as error:
        raise ModelUnavailable(f"cannot be read: {error}", where=str(adapter), mend="train it again") from error
    if not isinstance(found, str) or not found:
        raise ModelUnavailable(
            "does not name the model it adapts", where=str(adapter), mend="set base_model_name_or_path in it"
        )
    return found
