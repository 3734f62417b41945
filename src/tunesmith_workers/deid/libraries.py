"""Loads jieba and presidio, and says how to mend it when they are missing.

Presidio imports spaCy, and spaCy imports torch where it is installed: seconds and hundreds of megabytes for nothing
that is used here. So torch is hidden while they are imported, and shown again afterwards. No spaCy model is ever loaded.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from tunesmith_workers.process.faults import PackageMissing

_HIDDEN = ("torch", "transformers", "tensorflow", "mxnet", "cupy")


def load(name: str) -> Any:
    """A module of the extra.

    Raises:
        PackageMissing: with the command that installs it.
    """
    try:
        with _without_heavy_libraries(), warnings.catch_warnings():
            # Their own use of what Python or a library deprecates is not for our users to mend.
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise PackageMissing(
            f"de-identification needs the package {name.partition('.')[0]}: {error}",
            where="deid",
            mend="pip install 'tunesmith[deid]'",
        ) from error


def load_cutter() -> Any:
    """The part-of-speech tagger of jieba, with its dictionary in memory."""
    load("jieba").setLogLevel("WARNING")
    tokenizer = load("jieba").Tokenizer()
    # jieba trusts a cache under a well-known name in the shared temporary folder; in a folder of our own there is none.
    tokenizer.tmp_dir = tempfile.mkdtemp(prefix="tunesmith-jieba-")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cutter = load("jieba.posseg").POSTokenizer(tokenizer)
            cutter.initialize()
    finally:
        shutil.rmtree(tokenizer.tmp_dir, ignore_errors=True)
    return cutter


@contextmanager
def _without_heavy_libraries() -> Iterator[None]:
    hidden: list[str] = [name for name in _HIDDEN if name not in sys.modules]
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None means: not to be imported
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            if modules.get(name) is None:
                modules.pop(name, None)
