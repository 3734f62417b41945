"""What a preview depends on, as one hash: a kept answer is given again only while all of it is the same.

Reads small files of the model and looks at the data files. Called from threads.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

_VERSIONS = ("tunesmith", "transformers", "tokenizers", "torch", "jinja2")
_WORKERS = "tunesmith_workers"
_DATA_OPTIONS = ("train_file", "validation_file", "test_file", "chat_template")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")
_MODEL_FOLDERS = (".", "additional_chat_templates")


class Identity(msgspec.Struct, frozen=True):
    """What an answer was made from."""

    key: str
    files: tuple[str, ...]
    """The data files; with one of them gone, nothing of it may be kept."""


def identity_of(config: Mapping[str, Any], **asked: int) -> Identity | None:
    """The identity of a preview of this resolved config.

    None when it cannot be known: the model lies on a hub, where it may change.

    Raises:
        OSError: a file cannot be read, or changes at this moment.
    """
    named = (config["model"]["base"], config["model"].get("adapter_base"))
    models = [Path(str(one)) for one in named if one is not None]
    if not models or not all(model.is_dir() for model in models):
        return None
    data = config["data"]
    files = [Path(data[option]) for option in _DATA_OPTIONS if isinstance(data.get(option), str)]
    parts = {
        "config": config,
        "asked": asked,
        "files": [(str(path), *_stamp(path)) for path in files],
        "model": [list(_hashes(model)) for model in models],
        "versions": list(map(_version, _VERSIONS)),
        "workers": list(_worker_code()),
    }
    there = tuple(str(path) for path in files if path.is_file())
    return Identity(hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest(), there)


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes whenever the file does; empty for what is no file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _hashes(model: Path) -> Iterator[tuple[str, str]]:
    """Everything in the model's folder but weights: config, tokenizer, templates."""
    for folder in _MODEL_FOLDERS:
        for path in sorted((model / folder).glob("*")):
            if path.is_file() and path.suffix not in _WEIGHTS:
                with path.open("rb") as file:
                    yield str(path.relative_to(model)), hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} is not installed"


def _worker_code() -> Iterator[tuple[str, str]]:
    """An installation from a working folder changes without changing its version."""
    found = importlib.util.find_spec(_WORKERS)
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in sorted(Path(folder).rglob("*.py")):
            yield str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()
