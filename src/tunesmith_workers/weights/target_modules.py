"""Whether a model has the modules that an adapter is to be put on, known before rows are read and weights are loaded.

Configs are handed from one model family to another: ``query_key_value`` is ChatGLM's and Falcon's, ``q_proj`` Llama's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from tunesmith_workers.process.config import Lora
from tunesmith_workers.process.events import emit_message
from tunesmith_workers.process.faults import BadConfig

ALL_LINEAR = "all-linear"
_WHERE = "lora.target_modules"


def refuse_absent_modules(lora: Lora, base: str) -> None:
    """Warn of each name that the model has no module of.

    Raises:
        BadConfig: it has none at all of them; the message lists its own.
        ModelUnavailable: the model's config cannot be read.
    """
    if lora.target_modules == (ALL_LINEAR,):
        return
    model = _skeleton(base)
    if model is None:
        return
    absent = _absent(lora.target_modules, [name for name, _ in model.named_modules()])
    if not absent:
        return
    own = f"its linear modules are {', '.join(_linear_names(model))}"
    missing = f"this model ({type(model).__name__}) has no module named {' or '.join(absent)}"
    if len(absent) < len(lora.target_modules):
        emit_message(f"{_WHERE}: {missing}; it is left out; {own}", level="warning")
        return
    raise BadConfig(f"{missing}; {own}", where=_WHERE, mend=f"name some of these, or use [{ALL_LINEAR}]")


def _skeleton(base: str) -> Any | None:
    """The model without any weights; None where it cannot be built like that, and loading it will tell."""
    import torch  # noqa: PLC0415  # seconds of imports, which `all-linear` need not wait for
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  # likewise

    from tunesmith_workers.models.loading import load_config  # noqa: PLC0415  # likewise

    config = load_config(base)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    except Exception:  # noqa: BLE001  # an architecture may fail here in any way, and then still load
        return None


def _absent(wanted: Iterable[str], there: Collection[str]) -> list[str]:
    """Names that PEFT would match with nothing: it takes a whole dotted name, or the end of one."""
    return [name for name in wanted if not any(one == name or one.endswith(f".{name}") for one in there)]


def _linear_names(model: Any) -> list[str]:
    """The last parts of the names of linear layers, in the order of the first of each, without the output layer."""
    head = model.get_output_embeddings()
    kinds = ("Linear", "Conv1D")
    found = [name for name, module in model.named_modules() if type(module).__name__ in kinds and module is not head]
    return list(dict.fromkeys(name.rpartition(".")[2] for name in found))
