"""Which chat template a run uses: the tokenizer's own, one from a file, or the built-in ``chatml``.

Nothing is rendered here; see ``rendering``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith_workers.process.faults import BadConfig

CHATML = "chatml"


def choose_template(tokenizer: Any, wanted: str | None) -> None:
    """Set the tokenizer's chat template to the wanted one; it is saved with every checkpoint from then on.

    Raises:
        BadConfig: the file cannot be read.
    """
    if wanted == CHATML:
        tokenizer.chat_template = _chatml(tokenizer)
    elif wanted:
        try:
            tokenizer.chat_template = Path(wanted).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfig(
                f"the chat template {wanted!r} cannot be read: {error}",
                where="data.chat_template",
                mend=f"give the path of a Jinja file, or {CHATML}",
            ) from error


def require_template(tokenizer: Any) -> None:
    """Refuse rows of conversations when there is no template to render them with."""
    if not tokenizer.chat_template:
        raise BadConfig(
            "the base model has no chat template, and the rows are conversations",
            where="data.chat_template",
            mend=f"set it to {CHATML} or to the path of a template, or give rows of prompt and completion",
        )


def _chatml(tokenizer: Any) -> str:
    # A model without ChatML's own tokens ends a turn with the token it knows as an end.
    known = tokenizer.get_vocab()
    end = "'<|im_end|>'" if "<|im_end|>" in known else "eos_token"
    begins_with_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return (
        ("{{ bos_token }}" if begins_with_bos else "")
        + "{% for message in messages %}"
        + "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
        + end
        + " + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
