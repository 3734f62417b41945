"""What comes in place of what was found: its shape, what it follows from, and what it never is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gold_parts import rows

from tunesmith_workers.deid import Engine
from tunesmith_workers.deid.checksums import is_iban, is_id_card, is_luhn
from tunesmith_workers.process.faults import BadConfig

TEXTS = ["我叫张伟，手机13812345678，身份证110105199003071233", "张伟和李娜是同事，李娜的邮箱是li@a.cn"]


def with_policy(engine: Engine, folder: Path, kinds: str, more: str = "") -> Engine:
    folder.mkdir(exist_ok=True)
    (folder / "own.yaml").write_text(f'id: own\nversion: "3"\n{more}\nkinds: {kinds}\n', "utf-8")
    return Engine.load("own", folder, detector=engine.detector)


def test_the_same_seed_gives_the_same_texts(engine):
    """In another session too, and whatever else is in the request; another seed gives others."""
    first, counts = engine.texts(TEXTS, seed=7)
    assert engine.texts(TEXTS, seed=7) == (first, counts)
    assert engine.texts(list(reversed(TEXTS)), seed=7)[0] == list(reversed(first))
    assert engine.texts(TEXTS, seed=8)[0] != first
    assert engine.texts(TEXTS)[0] != engine.texts(TEXTS)[0]


def test_one_original_has_one_replacement(engine):
    """In all texts of a session, and however a number is written."""
    outcome = engine.session(1).texts(
        ["张伟来了", "张伟走了", "手机13812345678", "手机138 1234 5678", "手机+86 138 1234 5678"]
    )
    assert outcome.mapping[0] == outcome.mapping[1]
    [first], [second], [abroad] = (pairs.values() for pairs in outcome.mapping[2:])
    assert second.replace(" ", "") == first
    assert abroad == f"+86 {second}"
    assert second.count(" ") == 2
    assert outcome.counts == {"PERSON": 2, "PHONE": 3}


def test_two_originals_never_share_a_replacement(engine):
    """Not even with a thousand people in one session, nor does anything stay what it was."""
    numbers = [f"1{3 + index % 7}{index:09d}" for index in range(1000)]
    outcome = engine.session(3).texts([f"手机{number}" for number in numbers])
    made = [next(iter(pairs.values())) for pairs in outcome.mapping]
    assert len(set(made)) == 1000
    assert all(new != old for new, old in zip(made, numbers, strict=True))
    names = engine.session(3).texts([f"{surname}先生您好" for surname in "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"])
    assert len({next(iter(pairs.values())) for pairs in names.mapping}) == 20


def test_replacements_are_of_the_same_kind_and_shape(engine):
    """Digits stay digits, separators stay, checksums are right: what was an identity card is one."""
    session = engine.session(11)
    checked = 0
    for row in rows():
        [pairs] = session.texts([row.text]).mapping
        for kind, start, end in row.spans:
            original = row.text[start:end]
            made = pairs.get(original)
            if made is None:
                continue
            checked += 1
            assert made != original
            signs = re.sub(r"[^0-9A-Za-z]", "", made)
            if kind == "ID_CARD":
                assert is_id_card(signs)
            elif kind == "BANK_CARD":
                assert is_luhn(signs)
            elif kind == "BANK_ACCOUNT" and original[0].isalpha():
                assert is_iban(signs)
            if kind in {"PHONE", "LANDLINE", "SSN", "BANK_CARD", "BANK_ACCOUNT", "PASSPORT", "PLATE"}:
                assert len(made) == len(original)
                assert re.sub(r"\w", "x", made) == re.sub(r"\w", "x", original)
    assert checked > 400


@pytest.mark.parametrize("kind", ["PHONE", "LANDLINE", "EMAIL", "ID_CARD", "SSN", "BANK_CARD", "IP", "PLATE"])
def test_what_replaces_is_found_again_as_the_same_kind(engine, kind):
    """A made-up number is as good as a real one to every check there is."""
    originals = [row for row in rows() if any(one[0] == kind for one in row.spans)]
    made = engine.session(5).texts([row.text for row in originals]).texts
    again = [sum(span.kind == kind for span in engine.spans(text)) for text in made]
    assert sum(again) >= 0.9 * sum(sum(one[0] == kind for one in row.spans) for row in originals)


def test_a_mask_keeps_the_ends(engine, tmp_path):
    """As many as the policy says; of an e-mail address the part behind the @ stays; something short is never left whole."""
    own = with_policy(
        engine,
        tmp_path / "policies",
        "{PHONE: {action: mask, first: 3, last: 4}, EMAIL: {action: mask, first: 1}, PERSON: {action: mask, first: 5, character: '×'}}",
    )
    text, counts = own.texts(["张伟 138-1234-5678 zhang@a.cn"])
    assert text == ["张× 138-****-5678 z****@a.cn"]
    assert counts == {"EMAIL": 1, "PERSON": 1, "PHONE": 1}


def test_redacting_leaves_the_kind(engine):
    """And kinds that a policy does not name are left alone."""
    redact = Engine.load("redact", detector=engine.detector)
    assert redact.texts(["张伟的手机是13812345678"])[0] == ["<PERSON>的手机是<PHONE>"]


def test_a_policy_treats_only_what_it_names(engine, tmp_path):
    """What else is found stays."""
    own = with_policy(engine, tmp_path / "policies", "{PHONE: {action: redact}}")
    assert own.texts(["张伟的手机是13812345678"]) == (["张伟的手机是<PHONE>"], {"PHONE": 1})
    assert (own.policy_id, own.version) == ("own", "3")


def test_a_hash_needs_the_key(engine, tmp_path):
    """The same salt or seed gives the same hash, another one another; without either it is another every time."""
    kinds = "{PHONE: {action: hash, length: 16}}"
    texts = ["手机13812345678"]
    plain = with_policy(engine, tmp_path / "plain", kinds)
    salted = with_policy(engine, tmp_path / "salted", kinds, "salt: a secret")
    other = with_policy(engine, tmp_path / "other", kinds, "salt: another")
    assert re.fullmatch(r"手机<PHONE:[0-9a-f]{16}>", plain.texts(texts, seed=1)[0][0])
    assert plain.texts(texts, seed=1) == plain.texts(texts, seed=1)
    assert plain.texts(texts) != plain.texts(texts)
    assert salted.texts(texts) == salted.texts(texts)
    assert len({str(one.texts(texts, seed=1)) for one in (plain, salted, other)}) == 3


def test_an_unknown_locale_is_refused(engine):
    """By name."""
    with pytest.raises(BadConfig, match="fr-FR"):
        Engine.load(locale="fr-FR", detector=engine.detector)
