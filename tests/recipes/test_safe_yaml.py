"""RELIABILITY 27: whatever YAML a person or an attacker writes, it means what it says or is refused with its line."""

from __future__ import annotations

import contextlib
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import safe_yaml
from tunesmith.errors import InvalidInput, TooLarge

UNTIMED = settings(deadline=None)  # a busy machine is no failure


def load(text: str | bytes) -> object:
    return safe_yaml.load(text, source="f.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("1e5", 1e5),
        ("2.", 2.0),
        (".5", 0.5),
        ("-1.5e+3", -1500.0),
        ("010", 10),
        ("+12", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("", None),
        ("Null", None),
        ("2024-01-01", "2024-01-01"),
        ("-.inf", -math.inf),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
        ("=", "="),
        ("学习率", "学习率"),
        ("1.2.3", "1.2.3"),
        ("-", [None]),
    ],
)
def test_a_plain_value_means_what_yaml_1_2_says(text: str, value: object) -> None:
    """Numbers are numbers, and only true and false are booleans: not `no`, not an octal ten, not a date."""
    read = load(f"key:\n  {text}\n")
    assert read == {"key": value}
    assert type(read["key"]) is type(value)


def test_not_a_number_is_read_as_such() -> None:
    """The reader takes .nan; options refuse it later."""
    assert math.isnan(load(".nan"))


def test_keys_are_always_text() -> None:
    """`on`, `1` and `true` as keys stay what was typed, as they would in JSON."""
    assert load("on: 1\n1: 2\ntrue: 3\nnull: 4\n") == {"on": 1, "1": 2, "true": 3, "null": 4}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' twice, first in line 1"),
        ("x:\n  lr: 1\n  'lr': 2\n", 3, "'lr' twice"),
        ("a: &x [1, *x]\n", 1, "contains itself"),
        ("a: &x\n  b: *x\n", 2, "contains itself"),
        ("a: 1\nb: *nowhere\n", 2, "names no anchor"),
        ("a: !!python/object/apply:os.system [id]\n", 1, "tag"),
        ("a: !!str 1\n", 1, "tag !!str"),
        ("a: !custom {}\n", 1, "tag !custom"),
        ("base: &b {x: 1}\nc:\n  <<: *b\n", 3, "merge key"),
        ("? [a, b]\n: 1\n", 1, "as a key"),
        ("a: &k b\n*k : 1\n", 2, "as a key"),
        ("a: 1\n---\nb: 2\n", 2, "more than one document"),
        ("a: [1,\n  2\nb: 3\n", 3, "not valid YAML"),
        ("a:\n\t- 1\n", 2, "not valid YAML"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("a: 1\nb: x\0y\n", 2, "NUL"),
        ('a: 1\nb: "x\\0y"\n', 2, "NUL"),
        ("a: 1\nb: \x07\n", 2, "does not allow"),
        ("a: 1\nb: 99999999999999999999\n", 2, "64 bits"),
        ("a: 0x" + "f" * 5000, 1, "64 bits"),
        ("a: " + "9" * 100_000, 1, "64 bits"),
        ("a: 1e999\n", 1, "too large"),
        ("[" * 33, 1, "32 deep"),
        ("a: " * 40, 1, "not valid YAML"),
        (b"a: 1\nb: \xff\xfe\n", 2, "UTF-8"),
        ("a: 1\nb: 1\n".encode("utf-16"), 1, "UTF-8"),
        ("a: 1\nb: \ud800\n", 2, "UTF-8"),
    ],
)
def test_a_trap_is_refused_with_its_line(text: str | bytes, line: int, what: str) -> None:
    """Every refusal is an InvalidInput that names source and line, and says what it found there."""
    with pytest.raises(InvalidInput) as refused:
        load(text)
    assert refused.value.where == f"f.yaml:{line}"
    assert what in str(refused.value)
    assert refused.value.mend


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    """Nine levels of nine aliases would be 387 million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(InvalidInput, match="more than 100000 values"):
        load("\n".join(lines))


def test_a_bomb_of_long_text_is_refused_too() -> None:
    """Few values, but each a long text: what is written out later would be gigabytes."""
    lines = [f"a: &a {'x' * 1_000_000}", "b: &b [*a, *a, *a, *a]", "c: [*b, *b, *b, *b]"]
    with pytest.raises(InvalidInput, match="more than 100000 values"):
        load("\n".join(lines))


def test_aliases_cannot_nest_deeper_than_values_may() -> None:
    """Each level names the one before, so the text is flat and the value is not."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 40))]
    with pytest.raises(InvalidInput, match="32 deep"):
        load("\n".join(lines))


def test_a_few_aliases_work_and_share_nothing() -> None:
    """An alias is a copy: changing one place leaves the other alone."""
    read = load("a: &x {n: [1]}\nb: *x\n")
    assert read == {"a": {"n": [1]}, "b": {"n": [1]}}
    read["a"]["n"].append(2)
    assert read["b"] == {"n": [1]}


def test_a_document_over_the_size_limit_is_refused_unread() -> None:
    """The limit counts bytes, not characters."""
    with pytest.raises(TooLarge, match="12 bytes long; at most 10"):
        safe_yaml.load("a: 学习率", source="f.yaml", max_bytes=10)


def test_a_byte_order_mark_and_windows_lines_do_not_matter() -> None:
    """Editors on Windows write both."""
    assert load(b"\xef\xbb\xbfa: 1\r\nb: [x]\r\n") == {"a": 1, "b": ["x"]}


@UNTIMED
@given(
    st.text(max_size=200)
    | st.binary(max_size=200)
    | st.text(alphabet="ab:,[]{}&*!|>-?#'\"\n <0e.~", max_size=60).filter(bool)
)
def test_any_input_gives_plain_values_or_a_typed_error(content: str | bytes) -> None:
    """Nothing else ever comes out: no other exception, no date, no set, no bytes. Half of it is YAML's own marks."""
    value = None
    with contextlib.suppress(InvalidInput):
        value = load(content)
    assert_plain(value)


def assert_plain(value: object) -> None:
    assert type(value) in (dict, list, str, int, float, bool, type(None))
    for item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        assert type(item[0]) in (str, int)
        assert_plain(item[1])


TRAPS = [
    "1e-4",
    "yes",
    "no",
    "010",
    "0o7",
    "<<",
    "=",
    "~",
    "2024-01-01",
    "1_000",
    "12:30:00",
    "null",
    "+.inf",
    "0b1",
    "1.",
]
MARKS = [
    "-",
    "- a",
    "a: b",
    "# c",
    "a #b",
    "|",
    "\n",
    "\n a",
    " a\n b\n",
    "a\n\n",
    "\ta\n",
    "\u2028x\n",
    "\x85\n",
    "\ufeff",
]
OTHERS = ["9" * 30, "1e999", "学习率", "😀", "C:\\Users", "$(touch x)", "'; rm -rf /; '"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(
    TRAPS + MARKS + OTHERS
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXTS, children, max_size=4),
    max_leaves=12,
)


@UNTIMED
@given(VALUES)
def test_what_is_written_means_the_same_to_every_reader(value: object) -> None:
    """The config handed to run.sh reads back the same here (YAML 1.2) and with PyYAML (YAML 1.1)."""
    written = safe_yaml.dump(value)
    assert load(written) == value
    assert yaml.safe_load(written) == value


def test_written_yaml_is_for_people() -> None:
    """Keys keep their order, Chinese stays Chinese, lines stay lines, and no anchor appears."""
    shared = ["q_proj"]
    value = {"z": 1e-5, "a": "学习率", "text": "one\ntwo\n", "flag": "no", "l": shared, "m": shared}
    assert safe_yaml.dump(value).decode() == (
        "z: 1.0e-05\na: 学习率\ntext: |\n  one\n  two\nflag: 'no'\nl:\n- q_proj\nm:\n- q_proj\n"
    )
