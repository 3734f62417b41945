"""Fetches models from the Hugging Face hub, or from ModelScope: weights in safetensors and the tokenizer's files, nothing else.

The hub is asked once, with a short timeout: without a network the libraries would retry for most of a minute.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from tunesmith_workers.process.faults import ModelUnavailable, PackageMissing

MODELSCOPE = "modelscope:"
"""What the names of models on ModelScope begin with; all others are of the Hugging Face hub."""

WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]
WANTED = [
    *WEIGHTS,
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "*.model",
]
UNWANTED = ["*/*", "consolidated*"]
"""Copies of the weights for other programs."""

_SECONDS = 10.0


def local_folder(base: str, *, with_weights: bool = True) -> Path:
    """The folder that holds the model ``base``: itself, or what the hub has under that name, downloaded if need be.

    Without weights, only what describes the model and its tokenizer is downloaded.

    Raises:
        ModelUnavailable: the folder or the hub's model does not exist, or the hub cannot be reached.
    """
    folder = Path(base)
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
            raise ModelUnavailable(
                "the folder holds no model: config.json is missing", where=base, mend="name a folder that holds one"
            )
        return folder
    if base.startswith(("/", ".", "~")):
        raise ModelUnavailable("the model folder does not exist", where=base, mend="check model.base")
    return fetch(base, with_weights=with_weights)


def fetch(name: str, into: Path | None = None, *, with_weights: bool = True) -> Path:
    """Download ``name``, into the hub's cache unless a folder is given.

    Raises:
        ModelUnavailable: as ``local_folder``.
        PackageMissing: it is on ModelScope, whose library is an extra.
    """
    if name.startswith(MODELSCOPE):
        return _fetch_from_modelscope(name, into, with_weights=with_weights)
    unreachable = _ask(name)
    try:
        found = snapshot_download(
            name,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED if with_weights else [*UNWANTED, *WEIGHTS],
            local_dir=into,
            local_files_only=unreachable is not None and into is None,
        )
    except LocalEntryNotFoundError as error:
        raise ModelUnavailable(
            f"is neither a folder nor in the cache, and the hub cannot be reached: {unreachable}",
            where=name,
            mend="check the network, or name a folder that holds the model",
        ) from error
    return _checked(Path(found), name, with_weights=with_weights)


def _fetch_from_modelscope(name: str, into: Path | None, *, with_weights: bool) -> Path:
    """The same by ModelScope's own library, which keeps a cache of its own."""
    try:
        from modelscope import snapshot_download as download  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise PackageMissing(
            "models of ModelScope need the package modelscope, which is not installed",
            where=name,
            mend="pip install 'tunesmith[modelscope]'",
        ) from error
    try:
        found = download(
            name.removeprefix(MODELSCOPE),
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED if with_weights else [*UNWANTED, *WEIGHTS],
            local_dir=None if into is None else str(into),
        )
    except Exception as error:  # the library has exceptions of its own and those of requests
        raise ModelUnavailable(
            f"cannot be fetched from ModelScope: {_first_line(error)}",
            where=name,
            mend="check the name and the network",
        ) from error
    return _checked(Path(found), name, with_weights=with_weights)


def _checked(found: Path, name: str, *, with_weights: bool) -> Path:
    if with_weights and not any(found.glob("*.safetensors")):
        raise ModelUnavailable(
            "has no weights in safetensors", where=name, mend="choose a model that does; other formats can run code"
        )
    return found


def _ask(name: str) -> str | None:
    """Look the model up; why the hub cannot be reached is returned."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().model_info(name, timeout=_SECONDS)
    except GatedRepoError as error:
        raise ModelUnavailable(
            "needs its licence accepted on the hub, and a token", where=name, mend="accept it there and set HF_TOKEN"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelUnavailable(
            "is neither a folder here nor a model on the hub", where=name, mend="check model.base"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        return _first_line(error)
    except Exception as error:  # the hub's client has more than one HTTP library below it, each with its own exceptions
        if "Connect" in type(error).__name__ or "Timeout" in type(error).__name__:
            return _first_line(error)
        raise
    return None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
