"""Single rules of what counts as personal data: numbers that check out, names with titles, and what only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith_workers.deid.checksums import iban_digits, id_card_digit, is_iban, is_id_card, is_luhn, luhn_digit
from tunesmith_workers.deid.folding import fold

BODY = "11010519900307123"
ID_CARD = BODY + id_card_digit(BODY)
CARD = "622202100011234567" + luhn_digit("622202100011234567")


def found(engine, text: str, locale: str | None = None) -> list[tuple[str, str]]:
    spans = engine._detector.spans(text, locale)
    return [(span.kind, text[span.start : span.end]) for span in spans]


def test_an_identity_card_with_a_wrong_checksum_is_nothing_at_all(engine):
    """Not an identity card, nor a bank card, an account or a telephone number."""
    assert found(engine, f"身份证号{ID_CARD}") == [("ID_CARD", ID_CARD)]
    for last in set("0123456789X") - {ID_CARD[-1]}:
        assert found(engine, f"身份证号{BODY}{last}") == []
        assert found(engine, f"银行账号：{BODY}{last}") == []


def test_no_born_in_month_13(engine):
    """The date in an identity card number must be one."""
    body = "11010519901307123"
    assert found(engine, f"身份证{body}{id_card_digit(body)}") == []


@pytest.mark.parametrize("text", [f"卡号{CARD}", f"卡号 {CARD[:4]} {CARD[4:8]} {CARD[8:12]} {CARD[12:16]} {CARD[16:]}"])
def test_a_card_passes_the_luhn_check(engine, text):
    """With any other last digit it is none."""
    assert [kind for kind, _ in found(engine, text)] == ["BANK_CARD"]
    assert found(engine, text[:-1] + str((int(text[-1]) + 1) % 10)) == []


@pytest.mark.parametrize("label", ["订单号", "流水号：", "Order ", "tracking number "])
def test_a_number_that_is_called_something_else_is_left(engine, label):
    """Even if it would pass every check of a card or a telephone."""
    assert found(engine, f"{label}{CARD}") == []
    assert found(engine, f"{label}13812345678") == []


def test_full_width_signs_and_foreign_digits_are_read(engine):
    """The places are those in the original."""
    text = "电话：１３８１２３４５６７８，邮箱：ａ＠ｂ．ｃｏｍ，另一个٠٠"
    assert found(engine, text) == [("PHONE", "１３８１２３４５６７８"), ("EMAIL", "ａ＠ｂ．ｃｏｍ")]


@pytest.mark.parametrize(
    "text",
    [
        "版本10.0.19045.1 ",
        "v1.2.3.4",
        "Version 1.2.3.4 is out",
        "127.0.0.1",
        "255.255.0.0",
        "1.2.3.4.5",
        "256.1.1.1",
        "12:30:45",
    ],
)
def test_what_looks_like_an_address_of_a_machine(engine, text):
    """Versions, loopback, masks and times are left."""
    assert found(engine, text) == []


def test_a_title_leaves_the_name(engine):
    """The name is found without its title, a surname alone too; a nickname is not."""
    assert found(engine, "王先生您好") == [("PERSON", "王")]
    assert found(engine, "欧阳女士您好") == [("PERSON", "欧阳")]
    assert found(engine, "Mr. Smith called") == [("PERSON", "Smith")]
    assert found(engine, "班主任和顾问都来了") == []


def test_a_full_name_makes_its_parts_known(engine):
    """A surname alone is found where the whole name stands elsewhere in the text."""
    text = "Sarah Johnson called. Johnson will call again."
    assert found(engine, text) == [("PERSON", "Sarah Johnson"), ("PERSON", "Johnson")]
    assert found(engine, "Johnson will call again.") == []


def test_a_locale_decides_what_can_be_read_both_ways(engine):
    """A number with an area code is a landline in China and a telephone elsewhere; without a locale the script tells."""
    text = "020 7946 0958"
    assert found(engine, text, "zh-CN") == found(engine, f"电话{text}") == [("LANDLINE", text)]
    assert found(engine, text, "en-US") == found(engine, text) == [("PHONE", text)]
    assert found(engine, "010 62345678", "zh-CN") == [("LANDLINE", "010 62345678")]
    assert found(engine, "010 62345678", "en-US") == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"customer": "Wrenko Zylandt", "item": "mug"}', "Wrenko Zylandt"),
        ("Surname: Zylandt; nationality: British", "Zylandt"),
        ("Next of kin: Wrenko Khumalo", "Wrenko Khumalo"),
        ("I'm Keisha Daniels and I need help", "Keisha Daniels"),
        ("Park Min-ji presented the demo", "Park Min-ji"),
        ("hi im brandon, my order hasnt come", "brandon"),
        ("记录者：单雨婷", "单雨婷"),
        ("姓名：斯琴高娃，性别：女", "斯琴高娃"),
        ("昨天和陶勇一起吃饭", "陶勇"),
        ("抄送宋总", "宋"),
        ("财务部钮经理", "钮"),
    ],
)
def test_names_are_told_by_what_stands_around_them(engine, text, name):
    """Fields, labels, titles, and what people do; whether a list has the name or not."""
    assert found(engine, text) == [("PERSON", name)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("登录IP58.247.33.102不在常用地区", "IP", "58.247.33.102"),
        ("Travelers must show a passport; hers is M23456789.", "PASSPORT", "M23456789"),
        ("打到我司账户，工商银行1202026509900012345", "BANK_ACCOUNT", "1202026509900012345"),
        ("he drives plate 231-D-4471", "PLATE", "231-D-4471"),
        ("truck TXK-8842 is stuck", "PLATE", "TXK-8842"),
        ("他家住贵阳市云岩区中华北路28号附3号，离单位不远", "ADDRESS", "贵阳市云岩区中华北路28号附3号"),
        ("我在贵阳市中华北路28号3号楼下等您", "ADDRESS", "贵阳市中华北路28号3号"),
    ],
)
def test_numbers_are_told_by_what_stands_around_them(engine, text, kind, value):
    """In the clause before too, and glued to the word that says what they are."""
    assert found(engine, text) == [(kind, value)]


@pytest.mark.parametrize(
    "text", ["Kubernetes 1.29.3.1 broke", "见10.5.2.1节", "ETA 16:30", "张姐，在吗", "明天开始施工。"]
)
def test_what_only_looks_like_a_finding(engine, text):
    """Versions and sections, abbreviations, what relatives and work are called."""
    assert found(engine, text) == []


@pytest.mark.parametrize(
    "text", ["北京市朝阳区今天有雨", "我在上海工作", "The Lincoln Memorial is in Washington", "中关村大街很长"]
)
def test_a_place_alone_is_no_address(engine, text):
    """Nobody lives at a city."""
    assert found(engine, text) == []


def test_repositories_and_packages_are_no_mailboxes(engine):
    """`git@host:path` names a repository."""
    assert found(engine, "git clone git@github.com:acme/tools.git") == []
    assert found(engine, "npm i left-pad@1.3.0") == []


@given(st.text())
def test_folding_keeps_every_place(text):
    """One character for each, so that places in the folded text are places in the original."""
    assert len(fold(text)) == len(text)


@given(
    st.text(alphabet="0123456789", min_size=17, max_size=17), st.text(alphabet="0123456789", min_size=12, max_size=18)
)
def test_check_digits_check_out(body, card):
    """What the checks compute, they accept; another digit they refuse."""
    assert is_luhn(card + luhn_digit(card))
    assert not is_luhn(card + str((int(luhn_digit(card)) + 1) % 10))
    valid = "110105" + "19900101" + body[:3]
    assert is_id_card(valid + id_card_digit(valid))
    assert is_iban("GB" + iban_digits("GB", "NWBK" + body[:14]) + "NWBK" + body[:14])


MIXED = st.text(
    alphabet=st.one_of(
        st.sampled_from(list("0123456789-+()[]@.:：，。 \n\t/#xX·王李张路号区市省京AaBbSsMr先生")),
        st.characters(),
    ),
    max_size=300,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MIXED)
def test_places_are_in_order_within_the_text_and_apart(engine, text):
    """Whatever the text, lone surrogates included."""
    position = 0
    for span in engine.spans(text):
        assert position <= span.start < span.end <= len(text)
        position = span.end


@pytest.mark.parametrize(
    "piece",
    ["a", "1", "1 ", "12-", "\n", "路", "中山路", "A ", "Ab ", "a@", "a.", ":", "1:", "张·", "账号：", "1234 ", "(", "+1 (", "1 Ab ", "name is ",
     "Mr. Smith ", "13812345678,", "王", "张先生", "京A12345", "12 Oak Street, ", "\ud800", "registration ", "地址：", "𠀀"],
)  # fmt: skip
def test_no_text_makes_it_slow(engine, piece):
    """20,000 characters of anything are read; a pattern that tries everything would not come back within the time of a test."""
    text = piece * (20_000 // len(piece))
    spans = engine.spans(text)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)


def test_a_long_text_with_100_000_lines(engine):
    """What is in it is found."""
    text = "\n" * 50_000 + "电话13812345678" + "\n" * 50_000
    assert found(engine, text) == [("PHONE", "13812345678")]
