"""One rule of what a complete checkpoint is and what must match to resume from it, for the service and for its workers."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tunesmith import checkpoints as service
from tunesmith.checkpoints.fit import differences
from tunesmith.contract.manifest import MANIFEST, Misfit, Origin, misfits, read_manifest
from tunesmith_workers.process.faults import BadConfig
from tunesmith_workers.training import checkpoints as worker

CONFIG = {
    "job": {"type": "lora", "method": None},
    "model": {"base": "/base"},
    "data": {"train_file": None, "chat_template": None, "max_length": 512},
    "lora": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
    "training": {"learning_rate": 0.1},
}
# As version 0.1.0 wrote it before there was a contract.
WRITTEN_BEFORE = """{
  "kind": "checkpoint", "step": 4, "epoch": 0.5, "metrics": {"loss": 1.5, "eval_loss": null},
  "created_at": "2026-11-20T12:00:00.123456Z",
  "origin": {"base_model": "/base", "template_sha256": null, "tokenizer_sha256": "t", "data_sha256": "d", "config": %s,
             "data_policy": {"id": "default", "version": "1"}},
  "versions": {"torch": "2.13.0"},
  "files": [{"path": "adapter/weights", "bytes": 3}]
}"""


def origin(config: dict = CONFIG, **changes) -> worker.Origin:
    fields = {"base_model": "/base", "template_sha256": None, "tokenizer_sha256": "t", "data_sha256": "d"}
    return worker.Origin(**{**fields, "config": config, **changes})


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "checkpoint-4"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter/weights").write_bytes(b"abc")
    (folder / MANIFEST).write_text(WRITTEN_BEFORE % json.dumps(CONFIG))
    return folder


def test_what_a_version_before_wrote_is_resumed(folder):
    """And a manifest of today says the same under the same names."""
    assert service.read_manifest(folder) == read_manifest(folder)
    assert read_manifest(folder).bytes == 3
    assert worker.is_complete(folder)
    assert worker.metrics_of(folder) == {"loss": 1.5, "eval_loss": None}
    worker.refuse_misfit(folder, origin())
    before = json.loads((folder / MANIFEST).read_text())
    worker.complete(folder, kind="checkpoint", origin=origin(), step=4, epoch=0.5, metrics={"loss": 1.5})
    now = json.loads((folder / MANIFEST).read_text())
    assert list(now) == list(before)
    assert list(now["origin"]) == list(before["origin"])
    assert now["files"] == before["files"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("versions", {"torch": None}), ("versions", ["torch 2.4"]), ("versions", {"cuda": 12}), ("tokenizer_sha256", 123)],
)
def test_what_programs_of_others_write_is_a_checkpoint_all_the_same(folder, field, value):
    """Only what is compared, listed or shown has to be what we would write."""
    manifest = json.loads((folder / MANIFEST).read_text())
    (manifest["origin"] if field.startswith("tokenizer") else manifest)[field] = value
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert service.read_manifest(folder).step == 4


def test_a_base_that_is_taken_away_is_another_base(folder):
    """An override with null is not the model that the checkpoint was trained from."""
    then = read_manifest(folder).origin
    assert [fault.where for fault in differences(then, {**CONFIG, "model": {"base": None}})] == ["model.base"]
    assert differences(then, {name: value for name, value in CONFIG.items() if name != "model"}) == ()


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_text("{"),
        lambda folder: (folder / MANIFEST).write_text('{"step": -1, "created_at": "2026-01-01T00:00:00Z"}'),
        lambda folder: (folder / "adapter/weights").write_bytes(b"ab"),
        lambda folder: (folder / "adapter/weights").unlink(),
    ],
    ids=["none", "cut", "no step", "cut weights", "no weights"],
)
def test_half_a_checkpoint_is_none_on_either_side(folder, harm):
    """The service lists no such folder, and the worker does not resume from it."""
    harm(folder)
    assert service.read_manifest(folder) is None
    assert not worker.is_complete(folder)
    with pytest.raises(BadConfig, match="not a complete checkpoint"):
        worker.refuse_misfit(folder, origin())


def test_a_failing_machine_says_nothing_of_a_checkpoint(folder):
    """Out of descriptors: not known is not the same as not complete."""

    def read(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "too many open files", str(path))

    with pytest.raises(OSError, match="too many open files"):
        read_manifest(folder, read)


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("lora", "r", 4),
        ("lora", "lora_alpha", 8),
        ("lora", "target_modules", ["q_proj"]),
        ("job", "type", "sft"),
        ("data", "chat_template", "chatml"),
    ],
)
def test_both_sides_hold_a_resume_to_the_same(folder, section, option, value):
    """The call is refused with the option, and so is a worker that is started by hand."""
    other = {**CONFIG, section: {**CONFIG[section], option: value}}
    then = read_manifest(folder).origin
    assert [fault.where for fault in differences(msgspec.structs.replace(then, data_sha256=None), other)] == [
        f"{section}.{option}"
    ]
    with pytest.raises(BadConfig, match=f"{section}.{option} was .*, and is "):
        worker.refuse_misfit(folder, origin(other))


def test_an_adapter_is_no_start_for_whole_weights(folder):
    """A section that is null is known to be none; one that is not there says nothing."""
    without = {**CONFIG, "lora": None}
    assert misfits(origin(), origin(without))[0] == Misfit("lora.r", 8, None)
    assert misfits(origin(), origin({"training": {}})) == ()
    with pytest.raises(BadConfig, match=r"lora\.r was 8, and is None"):
        worker.refuse_misfit(folder, origin(without))


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("base_model", "model.base"),
        ("data_sha256", "the data's sha256"),
        ("template_sha256", "the chat template's sha256"),
        ("tokenizer_sha256", "the tokenizer's sha256"),
    ],
)
def test_a_worker_compares_what_only_it_can_see(folder, field, said):
    """A template where there was none is a difference, too."""
    with pytest.raises(BadConfig, match=f"{said} was .*, and is other"):
        worker.refuse_misfit(folder, origin(**{field: "other"}))


def test_a_recipe_that_says_nothing_is_held_to_nothing(folder):
    """But a worker of ours goes on only from what one of ours has written."""
    (folder / MANIFEST).write_text('{"step": 4, "created_at": "2026-01-01T00:00:00Z"}')
    manifest = service.read_manifest(folder)
    assert manifest.origin == Origin()
    assert differences(manifest.origin, CONFIG) == ()
    with pytest.raises(BadConfig, match="not a complete checkpoint"):
        worker.refuse_misfit(folder, origin())


def test_the_data_of_both_sides_has_one_hash(tmp_path):
    """Of a file, or of all data files in a folder one after the other."""
    (tmp_path / "b.jsonl").write_text("2")
    (tmp_path / "a.jsonl").write_text("1")
    sha256 = hashlib.sha256(b"12").hexdigest()
    assert worker.sha256_of_data(tmp_path) == sha256
    assert differences(Origin(data_sha256=sha256), {"data": {"train_file": str(tmp_path)}}) == ()


EIGHT_THREADS = """
import sys, threading
from pathlib import Path
from tunesmith.contract.manifest import read_manifest
sys.setswitchinterval(1e-6)
begin, folder = threading.Barrier(8), Path(sys.argv[1])
def read():
    begin.wait()
    assert read_manifest(folder).step == 4
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_may_read_their_first_manifest_at_once(folder):
    """A server that adopts several runs does. msgspec describes a struct when it first decodes one, and what another thread
    sees of an unfinished description ends the process: every second one of these did.
    """
    for _ in range(12):
        done = subprocess.run(
            [sys.executable, "-c", EIGHT_THREADS, str(folder)], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
