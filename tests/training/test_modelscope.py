"""Models of ModelScope come through its own library, and only what a model needs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tunesmith_workers.models.hub import fetch
from tunesmith_workers.process.faults import ModelUnavailable, PackageMissing


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Stands in for the library, whose hub no test can reach: it has the parameters of modelscope 1.40."""
    asked: list[dict] = []

    def snapshot_download(model_id=None, *, allow_patterns=None, ignore_patterns=None, local_dir=None):
        asked.append({"model": model_id, "allow": allow_patterns, "ignore": ignore_patterns})
        if model_id == "nobody/nothing":
            raise ValueError("no such model\nmore words")
        folder = Path(local_dir or tmp_path / "cache")
        folder.mkdir(exist_ok=True)
        if model_id != "owner/pickles":
            (folder / "model.safetensors").touch()
        return str(folder)

    module = ModuleType("modelscope")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope", module)
    return asked


def test_it_is_fetched_without_what_is_not_needed(library, tmp_path):
    assert fetch("modelscope:owner/model", into=tmp_path / "here") == tmp_path / "here"
    assert fetch("modelscope:owner/model", with_weights=False) == tmp_path / "cache"
    whole, described = library
    assert whole["model"] == "owner/model"
    assert "*.safetensors" in whole["allow"]
    assert "*.safetensors" not in whole["ignore"]
    assert "*.safetensors" in described["ignore"]


def test_what_cannot_be_had_is_told(library):
    with pytest.raises(ModelUnavailable, match="cannot be fetched from ModelScope: no such model"):
        fetch("modelscope:nobody/nothing")
    with pytest.raises(ModelUnavailable, match="no weights in safetensors"):
        fetch("modelscope:owner/pickles")


def test_without_the_library_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(PackageMissing, match="not installed") as refused:
        fetch("modelscope:owner/model")
    assert "tunesmith[modelscope]" in (refused.value.mend or "")
