"""Tunesmith: a self-hosted fine-tuning service for language models. Importing this package stays light."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.finetune_api import FinetuneAPI

__all__ = ["FinetuneAPI", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name != "FinetuneAPI":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # who only wants the version pays for nothing else

    return import_module("tunesmith.finetune_api").FinetuneAPI
