"""A trained model ready to answer: a whole one, or an adapter on the base that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith_workers.models.loading import explained, load_generation_config, load_model, named_attention
from tunesmith_workers.models.precision import device, precision_for
from tunesmith_workers.models.starting_point import ADAPTER_CONFIG, base_of
from tunesmith_workers.process.config import Attention, DType


def load_for_inference(base: str, dtype: DType, attention: Attention) -> Any:
    """Load a whole model, or an adapter on the base that it names, ready to answer.

    Raises:
        ModelUnavailable: the model, or the adapter's base, cannot be loaded.
    """
    precision = precision_for(dtype, trains_weights=False)
    chosen = named_attention(attention)
    adapter = Path(base) / ADAPTER_CONFIG
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
