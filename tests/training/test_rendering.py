"""What the model reads, and which tokens it is trained on."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_parts import chat

from support.tiny_model import CHATML
from tunesmith_workers.examples.rendering import IGNORED, Renderer
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.models.chat_templates import choose_template
from tunesmith_workers.process.faults import BadConfig, BadRows


def trained_texts(tokenizer, rendered) -> list[str]:
    """The trained parts of a row as text, one for each uninterrupted run of tokens."""
    runs: list[list[int]] = [[]]
    for token, label in zip(rendered.input_ids, rendered.labels, strict=True):
        if label == IGNORED:
            runs.append([])
        else:
            assert label == token
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs if run]


@pytest.fixture
def render(tokenizer, write_rows):
    def render(rows, *, template=CHATML, train_on="assistant"):
        chosen = copy.deepcopy(tokenizer)
        chosen.chat_template = template
        return Renderer(chosen, train_on).render(read_rows(write_rows(rows)))

    return render


@pytest.mark.parametrize(
    ("row", "trained"),
    [
        (chat("hi", "hello"), ["hello<|im_end|>"]),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}, ["yo<|im_end|>"]),
        ({"instruction": "add", "input": "1 2", "output": "3"}, ["3<|im_end|>"]),
        ({"prompt": "once upon", "completion": " a time"}, [" a time<|endoftext|>"]),
        ({"messages": [*chat("a", "b")["messages"], *chat("c", "d")["messages"]]}, ["b<|im_end|>", "d<|im_end|>"]),
        ({"messages": [{"role": "system", "content": "s"}, *chat("a", "b")["messages"]]}, ["b<|im_end|>"]),
    ],
)
def test_exactly_the_answers_and_their_end_are_trained(render, tokenizer, row, trained):
    """In every shape: the assistant's words and the token that ends them, nothing before, nothing after."""
    [rendered] = render([row])
    assert trained_texts(tokenizer, rendered) == trained


def test_an_answer_of_weight_zero_is_only_read(render, tokenizer):
    """A file made for OpenAI's fine-tuning excludes the answers that it excludes there."""
    first, second = chat("a", "b")["messages"], chat("c", "d")["messages"]
    [rendered] = render([{"messages": [first[0], {**first[1], "weight": 0}, *second]}])
    assert trained_texts(tokenizer, rendered) == ["d<|im_end|>"]


def test_training_on_all_trains_every_token(render):
    """`train_on: all` leaves nothing out, in chats and in plain text."""
    for rendered in render([chat("a", "b"), {"prompt": "c", "completion": "d"}], train_on="all"):
        assert rendered.labels == rendered.input_ids


def test_generation_tags_change_nothing(render):
    """A template with `{% generation %}` tags trains the same tokens as the same template without."""
    tagged = (
        "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
        "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    row = {"messages": [*chat("a", "b")["messages"], *chat("c", "d")["messages"]]}
    assert render([row], template=tagged) == render([row])


FORGETFUL = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('/think')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Drops the thoughts of earlier answers, as reasoning models' templates do."""


def test_a_template_that_rewrites_earlier_turns_gives_one_row_for_each_answer(render, tokenizer):
    """Each answer is learned in the context in which the model will be asked for it."""
    row = {"messages": [*chat("a", "why/thinkb")["messages"], *chat("c", "so/thinkd")["messages"]]}
    first, second = render([row], template=FORGETFUL)
    assert trained_texts(tokenizer, first) == ["why/thinkb<|im_end|>"]
    assert trained_texts(tokenizer, second) == ["so/thinkd<|im_end|>"]
    assert "why" not in tokenizer.decode(second.input_ids)


def test_a_template_that_contradicts_itself_is_refused(render):
    """Where asking and answering begin differently, training would teach what is never asked."""
    contradictory = CHATML.replace(
        "add_generation_prompt %}{{ '<|im_start|>assistant", "add_generation_prompt %}{{ '??"
    )
    with pytest.raises(BadConfig, match="generation prompt"):
        render([chat("a", "b")], template=contradictory)


def test_a_template_that_refuses_a_row_names_its_line(render):
    """What the template says reaches the person, with the line."""
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}" + CHATML
    row = {"messages": [{"role": "system", "content": "s"}, *chat("a", "b")["messages"]]}
    with pytest.raises(BadRows, match=r"rows\.jsonl:2: no system messages"):
        render([chat("a", "b"), row], template=strict)


def test_a_turn_without_an_end_token_is_known(render):
    """It is for the caller to refuse: the model would never learn to stop."""
    endless = CHATML.replace("<|im_end|>", "")
    [rendered] = render([chat("a", "b")], template=endless)
    assert rendered.unended


def test_conversations_without_a_template_are_refused(render):
    """A base model needs a template or plain rows, and the error says so."""
    assert render([{"prompt": "a", "completion": "b"}], template=None)
    with pytest.raises(BadConfig) as refused:
        render([chat("a", "b")], template=None)
    assert "chatml" in (refused.value.mend or "")


@pytest.mark.parametrize("source", ["chatml", "file"])
def test_a_template_can_be_given(tokenizer, tmp_path, write_rows, source):
    """Built in or from a file, and it ends each answer with a token that the tokenizer knows."""
    chosen = copy.deepcopy(tokenizer)
    chosen.chat_template = None
    file = tmp_path / "template.jinja"
    file.write_text(CHATML)
    choose_template(chosen, "chatml" if source == "chatml" else str(file))
    [rendered] = Renderer(chosen).render(read_rows(write_rows([chat("a", "b")])))
    assert trained_texts(tokenizer, rendered) == ["b<|im_end|>"]


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(str.strip)


@given(turns=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
@settings(deadline=None, max_examples=50)
def test_whatever_is_said_the_trained_text_is_the_answers(tokenizer, tmp_path_factory, turns):
    """Holds for any text, of any script, in any number of turns."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    messages = [message for question, answer in turns for message in chat(question, answer)["messages"]]
    path.write_bytes(msgspec_line({"messages": messages}))
    [rendered] = Renderer(tokenizer).render(read_rows(path))
    assert trained_texts(tokenizer, rendered) == [f"{answer}<|im_end|>" for _, answer in turns]
    assert tokenizer.decode(rendered.input_ids) == tokenizer.apply_chat_template(messages, tokenize=False)


def msgspec_line(row) -> bytes:
    import msgspec

    return msgspec.json.encode(row) + b"\n"
