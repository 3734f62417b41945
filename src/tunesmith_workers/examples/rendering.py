"""Turns rows into token ids and labels: what the model reads, and which of its tokens it is trained on.

A conversation is rendered by the chat template. The tokens of an assistant turn are those that the template adds after
the generation prompt, up to and including the token that ends the turn: exactly what the model must produce when it
is asked for an answer. Lengths, shares and over-long rows are judged in ``examples``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from jinja2 import TemplateError

from tunesmith_workers.examples.rows import Message, Row, is_trained
from tunesmith_workers.models.chat_messages import called_names, render
from tunesmith_workers.models.chat_templates import require_template
from tunesmith_workers.process.config import TrainOn
from tunesmith_workers.process.faults import BadConfig, BadRows, listed

IGNORED = -100
"""The label of a token that is read and not trained on; torch's cross entropy skips it."""

_ROWS_AT_ONCE = 512
Span = tuple[int, int]
"""From one character to another, the latter excluded."""


class Rendered(msgspec.Struct, frozen=True):
    """What one row became. ``labels`` equal ``input_ids`` where trained, and are IGNORED elsewhere."""

    input_ids: list[int]
    labels: list[int]
    where: str
    ended_by: frozenset[int]
    """The tokens that end the trained turns."""
    unended: bool = False
    """Whether a trained turn has no token that ends it."""


Watch = Callable[[Rendered, str, Sequence[Span]], None]
"""Is shown each row as it was rendered, with its text and which characters each token stands for.

Tokens that the tokenizer adds after the text have no characters: there may be more tokens than spans.
"""


class _Passage(msgspec.Struct, frozen=True):
    """Text with the parts to be trained on, as character ranges."""

    text: str
    spans: list[Span]
    where: str
    is_chat: bool


class _Refused(Exception):
    """What the template said about one row."""


class Renderer:
    """Renders rows with one tokenizer. The same renderer serves training, validation and previews."""

    def __init__(self, tokenizer: Any, train_on: TrainOn = "assistant", watch: Watch | None = None) -> None:
        self._tokenizer = tokenizer
        self._train_on = train_on
        self._watch = watch
        self._special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        self._special.update(tokenizer.all_special_ids)
        self.split_rows = 0
        """Conversations that became one row for each assistant turn, because the template rewrites earlier turns."""
        self.hidden_tools = 0
        """Conversations whose tools the template does not show to the model."""

    def render(self, rows: Sequence[Row], progress: Callable[[int], None] = lambda _: None) -> list[Rendered]:
        """Render all rows; ``progress`` is told how many are done.

        Raises:
            BadConfig: there is no chat template, or it cannot be used for training.
            BadRows: the template refuses some rows: all of them are named.
        """
        if any(row.messages for row in rows):
            require_template(self._tokenizer)
        rendered: list[Rendered] = []
        faults: list[str] = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            chunk = rows[start : start + _ROWS_AT_ONCE]
            passages: list[_Passage] = []
            for row in chunk:
                try:
                    passages += self._passages(row)
                except _Refused as refusal:
                    faults.append(f"{row.where}: {refusal}")
            rendered += self._encode(passages)
            progress(start + len(chunk))
        if faults:
            raise BadRows(
                f"the chat template refuses {len(faults)} rows:\n{listed(faults)}",
                where=faults[0].partition(": ")[0],
                mend="mend the rows, or choose another template with data.chat_template",
            )
        return rendered

    def _passages(self, row: Row) -> Iterator[_Passage]:
        if row.messages:
            yield from self._of_conversation(row)
        else:
            text = row.prompt + row.completion
            spans = [(0 if self._train_on == "all" else len(row.prompt), len(text))]
            yield _Passage(text, spans, row.where, is_chat=False)

    def _of_conversation(self, row: Row) -> Iterator[_Passage]:
        turns = [i for i, message in enumerate(row.messages) if is_trained(message)]
        text = self._template(row, row.messages)
        self.hidden_tools += _hides_tools(row, text)
        if self._train_on == "all":
            yield _Passage(text, [(0, len(text))], row.where, is_chat=True)
            return
        spans = [self._span(row, text, turn) for turn in turns]
        if None not in spans:
            for turn, span in zip(turns, spans, strict=True):
                _refuse_lost_calls(row, turn, text, span)
            yield _Passage(text, [span for span in spans if span], row.where, is_chat=True)
            return
        self.split_rows += 1
        for turn in turns:
            text = self._template(row, row.messages[: turn + 1])
            span = self._span(row, text, turn)
            if span is None:
                raise BadConfig(
                    "the chat template's generation prompt is not how it begins an assistant turn, so a model trained "
                    "with it would not answer as trained",
                    where=row.where,
                    mend="give a template that agrees with itself in data.chat_template",
                )
            _refuse_lost_calls(row, turn, text, span)
            yield _Passage(text, [span], row.where, is_chat=True)

    def _span(self, row: Row, text: str, turn: int) -> Span | None:
        """Where assistant message ``turn`` stands in ``text``; None when the template renders it otherwise there."""
        before = self._template(row, row.messages[:turn], generation_prompt=True)
        after = text if turn + 1 == len(row.messages) else self._template(row, row.messages[: turn + 1])
        if not (text.startswith(before) and text.startswith(after) and len(after) > len(before)):
            return None
        return len(before), len(after)

    def _template(self, row: Row, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        try:
            return render(self._tokenizer, messages, row.tools, generation_prompt=generation_prompt)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise _Refused(str(error) or type(error).__name__) from error

    def _encode(self, passages: list[_Passage]) -> list[Rendered]:
        rendered: list[Rendered | None] = [None] * len(passages)
        spans: list[Sequence[Span]] = [()] * len(passages)
        for is_chat in (True, False):
            chosen = [i for i, passage in enumerate(passages) if passage.is_chat == is_chat]
            if not chosen:
                continue
            # A template writes its own special tokens; plain text gets those that the tokenizer adds.
            encoded = self._tokenizer(
                [passages[i].text for i in chosen],
                add_special_tokens=not is_chat,
                return_offsets_mapping=True,
                return_attention_mask=False,
                verbose=False,
            )
            for i, ids, offsets in zip(chosen, encoded["input_ids"], encoded["offset_mapping"], strict=True):
                label = self._label_chat if is_chat else self._label_plain
                rendered[i] = label(passages[i], list(ids), offsets)
                spans[i] = offsets
        found = [row for row in rendered if row is not None]
        if self._watch is not None:
            for row, passage, offsets in zip(found, passages, spans, strict=True):
                self._watch(row, passage.text, offsets)
        return found

    def _label_chat(self, passage: _Passage, ids: list[int], offsets: list[Span]) -> Rendered:
        if self._train_on == "all":
            return Rendered(ids, list(ids), passage.where, frozenset(), unended=not self._special.intersection(ids))
        labels = [IGNORED] * len(ids)
        ends: set[int] = set()
        unended = False
        for span in passage.spans:
            inside = [i for i, offset in enumerate(offsets) if _within(offset, span)]
            while inside and ids[inside[-1]] not in self._special and _is_blank(passage.text, offsets[inside[-1]]):
                inside.pop()  # what the template writes after the end of a turn is not the model's to say
            if inside and ids[inside[-1]] in self._special:
                ends.add(ids[inside[-1]])
            else:
                unended = True
            for i in inside:
                labels[i] = ids[i]
        return Rendered(ids, labels, passage.where, frozenset(ends), unended=unended)

    def _label_plain(self, passage: _Passage, ids: list[int], offsets: list[Span]) -> Rendered:
        end = self._tokenizer.eos_token_id
        if end is None:
            raise BadConfig(
                "the tokenizer has no end token, so the model could not learn to stop",
                where="model.base",
                mend="add eos_token to its tokenizer_config.json",
            )
        if ids[-1:] != [end]:
            ids, offsets = [*ids, end], [*offsets, passage.spans[0]]
        labels = [
            token if _within(offset, passage.spans[0]) or i == len(ids) - 1 else IGNORED
            for i, (token, offset) in enumerate(zip(ids, offsets, strict=True))
        ]
        return Rendered(ids, labels, passage.where, frozenset({end}))


def _refuse_lost_calls(row: Row, turn: int, text: str, span: Span | None) -> None:
    """A template that knows no calls would have the model learn to say nothing where it should call."""
    begin, end = span or (0, 0)
    for name in called_names(row.messages[turn]):
        if name not in text[begin:end]:
            raise _Refused(f"messages[{turn}] calls {name}, and the chat template leaves out what is called")


def _hides_tools(row: Row, text: str) -> bool:
    names = [
        tool.get("function", tool).get("name") for tool in row.tools if isinstance(tool.get("function", tool), dict)
    ]
    return bool(names) and not any(isinstance(name, str) and name in text for name in names)


def _within(offset: Span, span: Span) -> bool:
    # A token that begins in the prompt is the prompt's: the model never has to produce it.
    return span[0] <= offset[0] < offset[1] <= span[1]


def _is_blank(text: str, offset: Span) -> bool:
    return not text[offset[0] : offset[1]].strip()
