"""The recipe export-onnx: a file that onnxruntime runs to the same logits as the model, with a cache, for any batch and length."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from adapter_parts import export_config, make_adapter
from peft import PeftModel
from training_parts import RECIPES, Told, environment, manifest_of, run_recipe

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def exported(tiny_model, tokenizer, tmp_path_factory) -> tuple[Path, dict[str, Any], Path]:
    """The output of an export of an adapter, what it told, and the adapter."""
    run = tmp_path_factory.mktemp("onnx")
    adapter = make_adapter(tiny_model, tokenizer, run / "adapter")
    code, told = run_recipe("export-onnx", export_config(run, adapter, export={"opset": 18}))
    assert code == 0, told.text
    assert [fields["phase"] for fields in told.of("progress")] == [
        "loading_model",
        "exporting",
        "saving",
        "checking",
        "done",
    ]
    return run / "output", told.of("result")[-1], adapter


@pytest.fixture(scope="module")
def session(exported) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(exported[0] / "model.onnx"))


def positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


def test_it_tells_what_is_in_the_file(exported):
    """Opset, bytes, difference and agreement are those of the file; tokenizer and generation config lie beside it."""
    output, result, _ = exported
    metrics = result["metrics"]
    model = onnx.load(output / "model.onnx")
    onnx.checker.check_model(model)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18] == [metrics["opset_version"]]
    assert metrics["bytes"] == (output / "model.onnx").stat().st_size
    assert metrics["max_abs_diff"] < 1e-4
    assert metrics["greedy_agreement"] == 1.0
    assert metrics["has_cache"] == 1.0
    names = {"batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"}
    sizes = {size.dim_param for one in model.graph.input for size in one.type.tensor_type.shape.dim if size.dim_param}
    assert sizes == names
    assert "model" not in result, "an ONNX folder is no model that trains or is served"
    assert {"tokenizer.json", "config.json", "generation_config.json", "model.onnx"} <= {
        file["path"] for file in manifest_of(output)["files"]
    }


@pytest.mark.parametrize(("batch", "past", "new"), [(1, 0, 1), (1, 0, 11), (3, 0, 7), (2, 4, 1), (4, 9, 3)])
def test_any_batch_length_and_past(exported, session, tiny_model, batch, past, new):
    """Computed by base and adapter as peft loads them, with padding on the left of one row."""
    model = PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(tiny_model), exported[2]).eval()
    ids = torch.randint(3, 300, (batch, past + new), generator=torch.Generator().manual_seed(batch))
    mask = torch.ones_like(ids)
    if batch > 1:
        mask[0, :2] = 0
    places = positions(mask)
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=mask, position_ids=places).logits[:, past:]
    feed = {one.name: np.zeros((batch, one.shape[1], 0, one.shape[3]), np.float32) for one in session.get_inputs()[3:]}
    names = [one.name for one in session.get_outputs()]
    for start, end in ((0, past), (past, past + new)):
        if start < end:
            feed |= {"input_ids": ids[:, start:end].numpy(), "attention_mask": mask[:, :end].numpy()}
            feed |= {"position_ids": places[:, start:end].numpy()}
            answer = dict(zip(names, session.run(None, feed), strict=True))
            feed |= {
                name.replace("present", "past_key_values"): value for name, value in answer.items() if name != "logits"
            }
    real = mask[:, past:].bool()
    assert float((torch.from_numpy(answer["logits"]) - wanted)[real].abs().max()) < 1e-4


def test_an_opset_that_is_too_old_and_a_file_that_is_not_exact(tiny_model, tmp_path):
    """The exporter writes the oldest opset that it can, and a warning says so. Over the tolerance the run fails and nothing is kept."""
    config = export_config(tmp_path, tiny_model, export={"opset": 14, "tolerance": 1e-12})
    code, told = run_recipe("export-onnx", config)
    assert told.said("the file has opset 18")
    assert code == 1
    assert told.error["where"] == "export.tolerance"
    assert not (tmp_path / "output").exists()


def test_it_is_stopped_at_once_and_leaves_nothing(tiny_model, tmp_path):
    """In the middle of the export."""
    config = export_config(tmp_path, tiny_model)
    command = ["bash", str(RECIPES / "export-onnx/run.sh"), str(config)]
    with subprocess.Popen(
        command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b'"exporting"' in line:
                break
        assert (tmp_path / "output").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not (tmp_path / "output").exists()


def test_a_missing_package_is_named_with_its_extra(tiny_model, tmp_path):
    """Before anything is loaded."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['onnxruntime'] = None\n")
    config = export_config(tmp_path / "run", tiny_model)
    done = subprocess.run(
        ["bash", str(RECIPES / "export-onnx/run.sh"), str(config)],
        env={**environment(config.parent), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
        timeout=100,
    )
    error = Told(done.stdout).error
    assert done.returncode == 1
    assert error["text"].endswith("not installed: onnxruntime")
    assert error["mend"] == "pip install 'tunesmith[export]'"
