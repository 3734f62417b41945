"""What is found in one place of a row is treated in all of it: a name that stays anywhere leaks, and teaches wrong answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.demo import orders
from tunesmith_workers.data.deidentify import Deidentifier
from tunesmith_workers.deid import Engine


def together(engine: Engine, *texts: str, seed: int = 1):
    return engine.session(seed).together(texts)


def own_policy(engine: Engine, folder: Path, kinds: str) -> Engine:
    (folder / "own.yaml").write_text(f'id: own\nversion: "1"\nkinds: {kinds}\n', "utf-8")
    return Engine.load("own", folder, detector=engine.detector)


def test_the_rows_of_the_demo_keep_no_name(engine):
    """The customer of every order, in the sentence and in the JSON of the answer; both say the same name afterwards."""
    rows = orders.train(40)
    done = list(map(Deidentifier(engine, 7).row, rows))
    mentions = replaced = 0
    for before, after in zip(rows, done, strict=True):
        was, now = (json.loads(row["messages"][2]["content"]) for row in (before, after))
        sentences = [row["messages"][1]["content"] for row in (before, after)]
        assert was["customer"] in sentences[0]
        mentions += 2
        replaced += (was["customer"] not in sentences[1]) + (was["customer"] != now["customer"])
        assert now["customer"] in sentences[1]
        assert {**now, "customer": None} == {**was, "customer": None}
    assert (mentions, replaced) == (80, 80)


def test_a_name_is_propagated_to_where_nothing_tells_that_it_is_one(engine):
    """Found by its label in one text, replaced alike in the others; counted and mapped like any other finding."""
    texts = ("My name is Wrenko Zylandt.", "wants: Wrenko Zylandt, 3 mugs", "no name here")
    outcome = together(engine, *texts)
    made = outcome.mapping[0]["Wrenko Zylandt"]
    assert outcome.texts == [f"My name is {made}.", f"wants: {made}, 3 mugs", "no name here"]
    assert outcome.mapping == [{"Wrenko Zylandt": made}, {"Wrenko Zylandt": made}, {}]
    assert outcome.counts == {"PERSON": 2}


def test_texts_that_do_not_belong_together_tell_nothing_of_each_other(engine):
    """The texts of a request are each on their own, and so are the rows of a file."""
    outcome = engine.session(1).texts(["My name is Wrenko Zylandt.", "wants: Wrenko Zylandt"])
    assert outcome.texts[1] == "wants: Wrenko Zylandt"
    assert engine.texts(["My name is Wrenko Zylandt. wants: Wrenko Zylandt"], seed=1)[1] == {"PERSON": 2}


@pytest.mark.parametrize(
    ("told", "silent"),
    [
        ("社保号 536 22 8817", "536 22 8817"),
        ("My bank account number is 000123456789.", "ref 000123456789 ok"),
        ("My bank account number is 0001 2345 6789.", "000123456789"),
        ("Passport number 123456789", '{"document": "123456789"}'),
        ("License plate HX 4421", '{"car": "HX 4421"}'),
        ("The card 4111111111111111 was declined.", "serial 4111-1111-1111-1111"),
        ("联系人：包得胜", "通知包得胜利了"),
        ("the host at 10.1.2.3", "version 10.1.2.3"),
    ],
)
def test_every_kind_is_propagated(engine, told, silent):
    """A number that only one text calls what it is, with other separators too."""
    alone = engine.spans(silent)
    first, second = together(engine, told, silent).texts
    assert alone == [], alone
    assert first != told
    assert second != silent


def test_the_same_value_has_one_kind_in_a_row(engine):
    """`020 7946 0958` is a landline in a Chinese text and a telephone in another: in one row it is one of them, in all texts."""
    outcome = together(engine, "电话020 7946 0958", "call 020 7946 0958", "020 7946 0958")
    assert len({made for pairs in outcome.mapping for made in pairs.values()}) == 1
    assert sorted(outcome.counts.values()) == [3]


@pytest.mark.parametrize(
    "text",
    [
        "wrenko zylandt",
        "Wrenkoson",
        "xZylandt",
        "Zylandt-Meyer",
        "Wrenko_1",
        "Wrenko2",
        "@Wrenko",
        "O'Zylandt",
        "call 51381234567890",
        "13812345678-22",
        "1.13812345678",
    ],
)  # fmt: skip
def test_what_only_contains_a_value_is_left(engine, text):
    """Longer words, other cases, longer numbers."""
    outcome = together(engine, "My name is Wrenko Zylandt, 手机13812345678", f"x {text}")
    assert outcome.texts[1] == f"x {text}"


def test_a_longer_finding_wins(engine):
    """A name within an address or within a longer name is part of that."""
    outcome = together(
        engine, "联系人：张伟", "收件人：张伟明", "Ship to 12 Johnson Road, Boston, MA 02118. Name: Ann Johnson"
    )
    assert list(outcome.mapping[1]) == ["张伟明"]
    assert list(outcome.mapping[2]) == ["12 Johnson Road, Boston, MA 02118", "Ann Johnson"]
    longer = together(engine, "Full name: Nadia Wrenko", "Nadia Wrenko wants a mug")
    assert list(longer.mapping[1]) == ["Nadia Wrenko"]


def test_parts_of_a_name_follow_the_full_name(engine):
    """First name, surname, and both without the middle name; in every text of the row, before the full name too."""
    outcome = together(
        engine,
        "Tanaka, is that you?",
        "This is Nadia Kim Tanaka.",
        '{"given": "Nadia"} Ms. Tanaka',
        "Nadia Tanaka's mug",
    )
    made = outcome.mapping[1]["Nadia Kim Tanaka"].split(" ")
    assert len(made) == 3
    assert outcome.texts[0] == f"{made[2]}, is that you?"
    assert outcome.texts[2] == f'{{"given": "{made[0]}"}} Ms. {made[2]}'
    assert outcome.texts[3] == f"{made[0]} {made[2]}'s mug"
    assert outcome.counts == {"PERSON": 5}


def test_nothing_of_a_name_survives_by_chance(engine):
    """No word of a full name is made up again at the same or another place of it."""
    names = ["Mary Johnson", "James Smith", "Michael Brown", "Jennifer Davis", "Robert Miller", "David Jones"]
    for seed in range(60):
        for name, made in ((name, engine.texts([f"My name is {name}."], seed)[0][0]) for name in names):
            assert not set(name.split()) & set(made[11:-1].split()), (seed, name, made)


def test_two_people_of_a_row_are_told_apart_by_their_first_names(engine):
    """What stands for one first name never stands for another one of the row."""
    for seed in range(80):
        outcome = together(
            engine, "Maria Lopez, Peter Khan, Nadia Rossi and Oliver Berg", "Maria, Peter, Nadia, Oliver", seed=seed
        )
        assert len(set(outcome.mapping[1].values())) == 4


@pytest.mark.parametrize(
    ("full", "text"),
    [
        ("Will Smith", "I will smith it. Will you come? Will that do?"),
        ("May Johnson", "In May it may rain. May I? See you in May."),
        ("Mark Spencer", "Mark the date and mark my words."),
        ("Grace Turner", "Grace period of ten days."),
        ("Victoria Clark", "Victoria Station is closed."),
        ("Robert Banks", "Banks are closed today."),
    ],
)  # fmt: skip
def test_ordinary_words_are_left(engine, full, text):
    """Names that are words, where nothing says that they are names."""
    outcome = together(engine, f"My name is {full}.", text)
    assert outcome.mapping[0]
    assert outcome.texts[1] == text


@pytest.mark.parametrize(
    ("full", "text", "part"),
    [
        ("Will Smith", "Will said that he comes.", "Will"),
        ("May Johnson", '{"first_name": "May"}', "May"),
        ("Mark Spencer", "I talked with Mark about it.", "Mark"),
        ("Grace Turner", "Thank you, Grace!", "Grace"),
        ("Robert Banks", "Mr. Banks called again.", "Banks"),
    ],
)  # fmt: skip
def test_ordinary_words_that_are_names_here_are_replaced(engine, full, text, part):
    """In quotes of their own, before what only people do, capitalised within a sentence."""
    assert part in together(engine, f"My name is {full}.", text).mapping[1]


def test_escapes_of_json_hide_nothing(engine):
    """Arguments of tools and answers in JSON are texts in which a name may be written with escapes."""
    outcome = together(engine, "我叫张伟明，住 Ann Müller 那里", json.dumps({"a": "张伟明", "b": "Ann Müller"}))
    names = outcome.mapping[0]
    assert json.loads(outcome.texts[1]) == {"a": names["张伟明"], "b": names["Ann Müller"]}


@pytest.mark.parametrize(("action", "stays"), [("redact", "<PERSON>"), ("mask, first: 1", "N****")])
def test_other_policies_treat_parts_on_their_own(engine, tmp_path, action, stays):
    """Stars and kinds need no likeness to the full name."""
    own = own_policy(engine, tmp_path, f"{{PERSON: {{action: {action}}}}}")
    assert own.session(1).together(["Nadia Tanaka", "Nadia"]).texts[1] == stays


def test_a_surname_before_a_title_follows_the_full_name_in_chinese(engine):
    """Of 张伟 the 张 of 张先生 becomes the surname of what 张伟 became."""
    for seed in range(10):
        outcome = together(engine, "我叫张晓伟", "好的，张先生，请稍等", seed=seed)
        made = outcome.mapping[0]["张晓伟"]
        assert outcome.texts[1] == f"好的，{made[0]}先生，请稍等"
        assert made[0] != "张"
