"""Keeps progress bars and advice to developers of libraries out of a process's log."""

from __future__ import annotations

import logging
import warnings

import transformers
from huggingface_hub.utils.tqdm import disable_progress_bars


def quiet() -> None:
    """Keep progress bars and advice to developers of libraries out of the run's log."""
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # likewise
    disable_progress_bars()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    for module in ("transformers", "peft", "torch", "accelerate"):
        warnings.filterwarnings("ignore", module=module)
