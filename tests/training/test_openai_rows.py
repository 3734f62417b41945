"""OpenAI's training files: the model reads what they say, and learns what is to be learned from them, no more."""

from __future__ import annotations

import copy
import json

import msgspec
import pytest
from openai_parts import ANSWERED, ARGUMENTS, CALLING, CHAT, FUNCTIONS, PREFERENCE, TEMPLATES, WEATHER, WEIGHTED
from training_parts import COLOURS, run_recipe

from support.tiny_model import CHATML
from tunesmith_workers.data.shapes import Texts, read
from tunesmith_workers.engine.chat import ChatRequest, prompt_of
from tunesmith_workers.evaluation.questions import prompt_for, questions_of
from tunesmith_workers.examples.batches import concatenate, count_trained, pad
from tunesmith_workers.examples.rendering import IGNORED, Renderer
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.models.call_ids import with_short_ids
from tunesmith_workers.models.chat_messages import render as render_chat
from tunesmith_workers.process.faults import BadRows


def trained(tokenizer, rendered) -> str:
    return tokenizer.decode([label for label in rendered.labels if label != IGNORED])


@pytest.fixture
def knowing(tokenizer):
    """The tokenizer with another template."""

    def knowing(template: str):
        chosen = copy.deepcopy(tokenizer)
        chosen.chat_template = template
        return chosen

    return knowing


@pytest.fixture
def render(write_rows, knowing):
    def render(rows, template=CHATML, **options):
        return Renderer(knowing(template), **options).render(read_rows(write_rows(rows)))

    return render


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (CHAT, "Rome, as if nobody had ever heard.<|im_end|>"),
        (WEIGHTED, "Rome, as if nobody had ever heard.<|im_end|>"),
    ],
    ids=["chat", "weighted"],
)
def test_the_answers_of_weight_one_are_trained(render, tokenizer, row, said):
    """In a chat of one turn, and in one whose first answer is excluded: it is read, and not learned."""
    [rendered] = render([row])
    assert trained(tokenizer, rendered) == said
    for message in row["messages"]:
        assert message["content"] in tokenizer.decode(rendered.input_ids)


def test_weights_hold_packed_and_padded(render):
    """Both ways to make a batch have the labels of its rows."""
    rows = render([WEIGHTED, CHAT])
    batch = concatenate(rows)
    padded = pad(batch, 0)
    count = sum(label != IGNORED for row in rows for label in row.labels)
    assert count_trained(batch) == (padded["labels"] != IGNORED).sum() == count
    assert count_trained(concatenate(rows[:1])) == count / 2


def test_weights_hold_where_a_conversation_becomes_several_rows(render, tokenizer):
    """A template that rewrites earlier turns gives a row for each trained answer, and none for the others."""
    content = "(message.content if loop.last or message.role != 'assistant' else '...')"
    forgetful = CHATML.replace("message['content']", content)
    row = {"messages": [*COLOURS[0]["messages"], *WEIGHTED["messages"][1:]]}
    rendered = render([row], template=forgetful)
    said = [trained(tokenizer, one) for one in rendered]
    assert said == ["green<|im_end|>", "Rome, as if nobody had ever heard.<|im_end|>"]


def test_training_on_all_does_not_ask_for_weights(render):
    """Every token is meant there."""
    [rendered] = render([WEIGHTED], train_on="all")
    assert rendered.labels == rendered.input_ids


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["lora", "sft"])
@pytest.mark.parametrize("attention", ["auto", "eager"], ids=["packed", "padded"])
def test_an_excluded_answer_is_not_counted_as_trained(write_rows, write_config, tokenizer, recipe, attention):
    """In both recipes, packed and padded: a step trains the tokens of the other answers and of their ends."""
    excluded = [{"role": "user", "content": "and?"}, {"role": "assistant", "content": "do not say this", "weight": 0}]
    rows = [{"messages": [*excluded, *row["messages"]]} for row in COLOURS[:4]]
    training = {"max_steps": 1, "per_device_train_batch_size": 4, "preflight": False}
    code, told = run_recipe(recipe, write_config(write_rows(rows), model={"attention": attention}, training=training))
    assert code == 0, told.text
    answers = tokenizer([row["messages"][1]["content"] + "<|im_end|>" for row in COLOURS[:4]])["input_ids"]
    [counted] = [fields["trained_tokens"] for fields in told.of("metrics") if "loss" in fields]
    assert counted == sum(map(len, answers))


@pytest.mark.training
def test_a_file_of_all_forms_trains(write_rows, write_config, tmp_path):
    """Chats, weights and calls in both forms in one file, as the service trains it."""
    template = tmp_path / "calls.jinja"
    template.write_text(TEMPLATES["hermes"])
    rows = [CHAT, WEIGHTED, CALLING, ANSWERED, FUNCTIONS]
    config = write_config(write_rows(rows), data={"chat_template": str(template)}, training={"max_steps": 12})
    code, told = run_recipe("lora", config)
    assert code == 0, told.text
    assert told.losses[-1] < told.losses[0]


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_call_is_rendered_once_and_trained(render, tokenizer, family):
    """Arguments are JSON in a text there; however a template writes them, they are not encoded twice, nor shown as Python does."""
    [rendered] = render([CALLING], template=TEMPLATES[family])
    said = trained(tokenizer, rendered)
    assert said.endswith("<|im_end|>")
    if family == "items":
        assert said.removesuffix("<|im_end|>") == "get_current_weather<location>Zürich, Switzerland<format>celsius"
    else:
        assert "get_current_weather" in said
        begin, end = said.index('{"location"'), said.rindex('"celsius"}') + len('"celsius"}')
        assert json.loads(said[begin:end]) == json.loads(ARGUMENTS)
    assert "\\" not in said


@pytest.mark.parametrize("family", sorted(TEMPLATES.keys() - {"mistral with ids"}))
def test_the_older_form_says_the_same(render, family):
    """`functions` and `function_call` are tools and calls; the function's answer is a tool's."""
    bare = copy.deepcopy(ANSWERED)
    template = TEMPLATES[family].replace("call.type", "'function'")
    assert render([FUNCTIONS], template=template)[0].input_ids == render([bare], template=template)[0].input_ids


def test_ids_are_shortened_where_a_template_refuses_longer_ones(render, tokenizer):
    """The call and its answer have the same one, of nine letters or digits, whichever form the row has."""
    for row, short in ((ANSWERED, "000callid"), (FUNCTIONS, "000000000")):
        [rendered] = render([row], template=TEMPLATES["mistral with ids"])
        text = tokenizer.decode(rendered.input_ids)
        assert f', "id": "{short}"' + "}]<|im_end|>" in text
        assert f"21.4{short}<|im_end|>" in text
    twice = [{"name": "f", "arguments": "{}"}, {"name": "g", "arguments": "{}"}]
    rows = [
        {"role": "assistant", "tool_calls": [{"function": function} for function in twice]},
        {"role": "tool", "content": "f"},
        {"role": "tool", "content": "g"},
        {"role": "tool", "content": "h"},
    ]
    calling, *answers = with_short_ids(rows)
    assert [call["id"] for call in calling["tool_calls"]] == [answer["tool_call_id"] for answer in answers[:2]]
    assert len(answers[2]["tool_call_id"]) == 9


def test_arguments_may_be_an_object(render):
    """As other files have them, and the texts are the same as of OpenAI's."""
    row = copy.deepcopy(CALLING)
    row["messages"][1]["tool_calls"][0]["function"]["arguments"] = json.loads(ARGUMENTS)
    for template in TEMPLATES.values():
        assert render([row], template=template) == render([CALLING], template=template)


def test_the_model_reads_the_tools_and_learns_the_call_and_the_answer(render, tokenizer):
    """What the tool says is read only."""
    [rendered] = render([ANSWERED], template=TEMPLATES["qwen2.5"])
    text = tokenizer.decode(rendered.input_ids)
    assert WEATHER["function"]["description"] in text
    assert "tool\n21.4<|im_end|>" in text
    call = '<tool_call>\n{"name": "get_current_weather", "arguments": ' + ARGUMENTS + "}\n</tool_call><|im_end|>"
    assert trained(tokenizer, rendered) == call + "It is 21.4 °C.<|im_end|>"


def test_a_template_without_calls_is_refused(render):
    """The model would learn to say nothing; the line and the function are named."""
    with pytest.raises(BadRows, match=r"rows\.jsonl:2: messages\[1\] calls get_current_weather") as refused:
        render([CHAT, CALLING])
    assert "data.chat_template" in str(refused.value.mend)


@pytest.mark.parametrize(("template", "role"), [(CHATML, "system"), (CHATML + "{# developer #}", "developer")])
def test_a_developer_is_the_system_where_the_template_knows_none(render, tokenizer, template, role):
    """A template that names developers gets them as they are."""
    row = {"messages": [{"role": "developer", "content": "be brief"}, *CHAT["messages"][1:]]}
    [rendered] = render([row], template=template)
    assert tokenizer.decode(rendered.input_ids).startswith(f"<|im_start|>{role}\nbe brief")


@pytest.mark.parametrize(
    "answer",
    [
        {"content": [{"type": "text", "text": "I "}, {"type": "text", "text": "won't."}]},
        {"content": [{"type": "refusal", "refusal": "I won't."}]},
        {"content": None, "refusal": "I won't."},
        {
            "refusal": "I won't.",
            "name": "otto",
            "audio": None,
            "tool_calls": None,
            "function_call": None,
            "weight": None,
        },
    ],
)
def test_parts_and_refusals_are_the_answer(render, tokenizer, answer):
    """However a file says it, and whatever the SDK writes as null beside it."""
    [rendered] = render([{"messages": [CHAT["messages"][1], {"role": "assistant", **answer}]}])
    assert trained(tokenizer, rendered) == "I won't.<|im_end|>"


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_what_was_trained_is_what_is_asked_and_served(write_rows, knowing, render, template):
    """Evaluation and the built-in engine render a conversation with calls as training does."""
    [rendered] = render([ANSWERED], template=template)
    tokenizer = knowing(template)
    answer = tokenizer("It is 21.4 °C.<|im_end|>\n", add_special_tokens=False)["input_ids"]
    [question] = questions_of(read_rows(write_rows([ANSWERED])), answers=True)
    _, asked = prompt_for(question, tokenizer)
    served = prompt_of(_request(ANSWERED), tokenizer)
    assert asked == served
    assert tokenizer.decode(served + answer) == tokenizer.decode(rendered.input_ids)


def _request(row) -> ChatRequest:
    return msgspec.convert({"messages": row["messages"][:-1], "tools": row["tools"]}, ChatRequest)


def test_a_model_that_wrote_no_json_is_handed_its_own_words(knowing):
    """When served, arguments that are no JSON are rendered, not refused."""
    broken = copy.deepcopy(ANSWERED)
    broken["messages"][1]["tool_calls"][0]["function"]["arguments"] = "Zürich, I think"
    for template in (TEMPLATES["qwen2.5"], TEMPLATES["deepseek"]):
        tokenizer = knowing(template)
        assert "Zürich, I think" in tokenizer.decode(prompt_of(_request(broken), tokenizer))


def test_a_preference_has_the_prompt_and_both_answers_to_render(tokenizer):
    """OpenAI's form is read as every other preference: what a method renders is the same conversation, once with each answer."""
    reading = read(PREFERENCE, shapes=("preference",))
    assert isinstance(reading, Texts)
    prompt, chosen, rejected = (reading.fields[name] for name in ("prompt", "chosen", "rejected"))
    assert render_chat(tokenizer, [*prompt, *chosen]).endswith(
        "assistant\nRather cold, and cool for the season.<|im_end|>\n"
    )
    assert render_chat(tokenizer, [*prompt, *rejected]).startswith(
        render_chat(tokenizer, prompt, generation_prompt=True)
    )


def test_evaluation_compares_with_the_last_answer_that_is_trained(write_rows):
    """An excluded answer is not what the model should say."""
    swapped = copy.deepcopy(WEIGHTED)
    swapped["messages"][2]["weight"], swapped["messages"][4]["weight"] = 1, 0
    [question] = questions_of(read_rows(write_rows([swapped])), answers=True)
    assert question.expected == "Rome."
