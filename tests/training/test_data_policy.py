"""What a model's manifest says of the policy that its data went through."""

from __future__ import annotations

import hashlib
import json

import msgspec

from tunesmith_workers.data.deidentify import Policy
from tunesmith_workers.data.provenance import Input, provenance_of
from tunesmith_workers.data.split import WrittenFile
from tunesmith_workers.training.checkpoints import complete, origin_of

ROW = b'{"prompt": "a", "completion": "b"}\n'


def test_a_manifest_names_the_policy_of_its_data(tmp_path, tokenizer):
    """When the provenance beside the file vouches for these very bytes; otherwise it is null."""
    data, model = tmp_path / "data/train.json", tmp_path / "model"
    data.parent.mkdir()
    model.mkdir()
    data.write_bytes(ROW)
    written = WrittenFile(sha256=hashlib.sha256(ROW).hexdigest(), rows=1, bytes=len(ROW))
    source = Input(path="a.jsonl", bytes=1, sha256="0" * 64)
    provenance = provenance_of(source, {}, Policy("strict", "2"), {"train.json": written})
    (data.parent / "provenance.json").write_bytes(msgspec.json.encode(provenance))

    def policy() -> dict | None:
        origin = origin_of(base="base", tokenizer=tokenizer, data=data, config={})
        complete(model, kind="adapter", origin=origin, step=1, epoch=None, metrics={})
        return json.loads((model / "manifest.json").read_bytes())["origin"]["data_policy"]

    assert policy() == {"id": "strict", "version": "2"}
    data.write_bytes(ROW * 2)
    assert policy() is None
