"""What the tests of previews share: a model without weights, rows, and asking. Asserts nothing about previews."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from support.server import polled
from tunesmith.runner.local.identity import identify

ROOT = Path(__file__).parents[2]
END = "<|im_end|>"
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **more}]}


ROWS = [
    chat("草是什么颜色", "绿色。"),
    chat("and the sky? 🙂", "blue 🌊"),
    *(chat(f"question {n} {'why ' * (n % 7)}", f"answer {n}") for n in range(38)),
]


def write_model(folder: Path, template: str | None = TEMPLATE) -> Path:
    """A folder with a byte-level tokenizer and a config: all that a preview needs of a model."""
    folder.mkdir(parents=True)
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(["user assistant system question answer why"] * 4, trainer)
    inner.save(str(folder / "tokenizer.json"))
    said: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    if template is not None:
        said["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    shape = {
        "vocab_size": 300,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["X"], **shape}))
    return folder


def lines(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def dataset_of(client: httpx.Client, name: str, content: bytes, file: str = "train.jsonl") -> str:
    """A new dataset with one file."""
    made = client.post("/api/v1/datasets", json={"name": name})
    assert made.status_code == 201, made.text
    dataset_id: str = made.json()["id"]
    put = client.put(f"/api/v1/datasets/{dataset_id}/files", files={"file": (file, content)})
    assert put.status_code == 200, put.text
    return dataset_id


def workers_of(server_pid: int) -> Iterator[int]:
    """Preview workers whose parent is the server."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == server_pid and b"tunesmith_workers.programs.preview" in command:
            yield int(entry.name)


def wait_until_gone(pid: int) -> bool:
    return any(polled(lambda: identify(pid) is None))
