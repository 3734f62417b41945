"""What is wrong with a body: all of it at once, each with its place and the choices, in English."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.api.examples import BODIES
from tunesmith.api.faults import NOT_EMPTY, faults_in
from tunesmith.records import RunState

ECMA_BLANKS = r"\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"


class Inner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str
    count: Annotated[int, msgspec.Meta(ge=1, le=10)] | None = None


class Outer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=5)]
    state: RunState = RunState.QUEUED
    shape: Literal["tunesmith", "finetune"] = "tunesmith"
    ratio: float = 0.5
    inner: Inner | str | None = None
    many: tuple[Inner, ...] = ()
    notes: Mapping[str, Any] = {}
    counts: dict[str, int] = {}
    tags: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=3)], ...], msgspec.Meta(max_length=2)] = ()
    wide: list[Any] | dict[str, Any] | None = None


def told(value: Any) -> dict[str | None, str]:
    return {fault.where: str(fault) for fault in faults_in(value, Outer)}


def test_every_fault_is_told_with_its_place():
    """Of fields, of nested structs, of items of lists: one answer is enough to mend the request."""
    faults = told(
        {
            "name": "far too long",
            "state": "runing",
            "ratio": "0.5",
            "inner": {"url": 3, "count": 0, "cuont": 1},
            "many": [{"url": "a"}, {}, 7],
            "counts": {"a": 1, "b c": "x"},
            "tags": ["a", "abcd", 5],
            "taggs": [],
        }
    )
    assert faults["name"] == "name: must have at most 5 characters, and has 12"
    assert 'must be one of "validating", "queued", "starting"' in faults["state"]
    assert 'not the text "runing"' in faults["state"]
    assert "did you mean running?" in faults["state"]
    assert faults["ratio"] == 'ratio: must be a number, not the text "0.5"'
    assert faults["inner.url"] == "inner.url: must be text, not the number 3"
    assert faults["inner.count"] == "inner.count: must be at least 1, not the number 0"
    assert faults["inner.cuont"] == "inner.cuont: there is no such field (did you mean count?)"
    assert faults["many[1].url"] == "many[1].url: is required (send text)"
    assert faults["many[2]"] == "many[2]: must be an object, not the number 7"
    assert faults['counts."b c"'] == 'counts."b c": must be a whole number, not the text "x"'
    assert faults["tags"] == "tags: must have at most 2 items, and has 3"
    assert faults["tags[1]"] == "tags[1]: must have at most 3 characters, and has 4"
    assert faults["tags[2]"] == "tags[2]: must be text, not the number 5"
    assert faults["taggs"] == "taggs: there is no such field (did you mean tags?)"


def test_what_fits_has_no_faults():
    """Null where it is allowed, whichever member of a union, and anything where anything goes."""
    for inner in (None, "text", {"url": "u"}, {"url": "u", "count": None}):
        assert told({"name": "n", "inner": inner, "ratio": 1, "notes": {"a": [None]}, "wide": [1]}) == {}


@pytest.mark.parametrize("value", [[], "x", 5, None, True])
def test_a_body_that_is_no_object(value):
    """Named as a whole."""
    assert [fault.message[:18] for fault in faults_in(value, Outer)] == ["must be an object,"]


def test_a_thousand_faults_are_not_all_told():
    """An answer stays readable, and small."""
    assert len(faults_in({"name": "n", "many": [5] * 1000}, Outer)) == 100


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-20, 20)
    | st.floats(-3, 3)
    | st.sampled_from(["", "abc", "queued", "x" * 9]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "count", "name", "split", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(wanted=st.sampled_from([Outer, *BODIES]), data=st.data())
def test_faults_are_found_exactly_where_the_decoder_refuses(wanted, data):
    """For every body of the API: no fault of a value that it takes, and at least one of a value that it refuses."""
    names = [field.encode_name for field in msgspec.structs.fields(wanted)]
    value = data.draw(st.dictionaries(st.sampled_from([*names, "unknown"]), values, max_size=6) | values)
    try:
        msgspec.json.decode(json.dumps(value), type=wanted)
        refused = False
    except msgspec.ValidationError:
        refused = True
    assert bool(faults_in(value, wanted)) is refused


def test_not_empty_means_the_same_here_and_in_the_document():
    """Python's class of blanks and ECMA's (whitespace and line ends, ECMA-262 22.2.2.9) differ in six characters."""
    ours = re.compile(NOT_EMPTY)
    assert NOT_EMPTY.count(r"\s") == 1
    theirs = re.compile(NOT_EMPTY.replace(r"\s", ECMA_BLANKS))
    every = list(map(chr, range(sys.maxunicode + 1)))
    blank = [one for one in every if not ours.search(one)]
    assert blank == [one for one in every if not theirs.search(one)]
    assert set(blank) == {*filter(str.isspace, every), "\ufeff"}
    assert ours.search("\u0085a\ufeff")


def test_the_document_has_the_pattern(client):
    """Of tags, and of the names of keys."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["NewTags"]["properties"]["tags"]["items"]["pattern"] == NOT_EMPTY
    assert schemas["KeyRequest"]["properties"]["name"]["pattern"] == NOT_EMPTY
