"""Downloads: whole or in ranges, exactly the bytes that were uploaded, and safe to open in a browser."""

from __future__ import annotations

import httpx
import pytest
from dataset_parts import new_dataset, put_file
from hypothesis import given
from hypothesis import strategies as st

from support.server import ServerProcess
from tunesmith.api.ranges import Unsatisfiable, disposition, parse_range

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
def address(client: httpx.Client) -> str:
    dataset = new_dataset(client)
    upload = put_file(client, dataset, "训练 <b>.jsonl", CONTENT)["upload_id"]
    return f"/api/v1/datasets/{dataset}/files/{upload}/content"


def test_a_file_comes_back_as_an_attachment(client, address) -> None:
    """No browser takes it for a page, and it is called what it was called."""
    answer = client.get(address)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"__ _b_.jsonl\"; filename*=UTF-8''%E8%AE%AD%E7%BB%83%20%3Cb%3E.jsonl"
    )


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=10000-", 10_000, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        (f"bytes=5-{SIZE * 9}", 5, SIZE),
        ("Bytes = 1-2", 1, 3),
    ],
)
def test_a_range_is_answered_with_just_that(client, address, asked, start, end) -> None:
    """206, with what part of how much it is."""
    answer = client.get(address, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE * 5}-{SIZE * 6}", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(client, address, asked) -> None:
    """416, with how much there is."""
    answer = client.get(address, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert answer.json()["where"] == "Range"


@pytest.mark.parametrize(
    "asked",
    ["bytes=5-2", "bytes=0-1,5-6", "lines=1-2", "bytes=a-b", "bytes", "", "bytes=1-2x", "bytes=" + "9" * 50 + "-"],
)
def test_what_is_no_single_range_gives_the_whole(client, address, asked) -> None:
    """As the RFC has it: such a header is as good as none."""
    answer = client.get(address, headers={"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, SIZE)


def test_a_client_that_has_it_gets_nothing(client, address) -> None:
    """By its entity tag; and a range of another version is not mixed with this one."""
    tag = client.get(address).headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        assert client.get(address, headers={"If-None-Match": known}).status_code == 304
    assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
    ranged = {"Range": "bytes=0-9"}
    assert client.get(address, headers={**ranged, "If-Range": tag}).status_code == 206
    for other in ('"other"', f"W/{tag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert client.get(address, headers={**ranged, "If-Range": other}).status_code == 200


@pytest.mark.parametrize("kind", ["link", "folder", "missing"])
def test_only_a_regular_file_is_sent(client, server: ServerProcess, kind, tmp_path) -> None:
    """Whatever else somebody put in its place, nothing outside is read."""
    dataset = new_dataset(client)
    upload = put_file(client, dataset, "a.jsonl")["upload_id"]
    path = server.state_dir / "uploads" / upload / "data.jsonl"
    path.unlink()
    (tmp_path / "secret").write_text("secret")
    if kind == "link":
        path.symlink_to(tmp_path / "secret")
    elif kind == "folder":
        path.mkdir()
    answer = client.get(f"/api/v1/datasets/{dataset}/files/{upload}/content")
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_a_file_of_another_dataset_is_not_found_here(client, address) -> None:
    """An upload's id under a dataset that does not hold it."""
    other = new_dataset(client)
    assert client.get(f"/api/v1/datasets/{other}/files/{address.split('/')[-2]}/content").status_code == 404


@given(st.text(max_size=60), st.integers(0, 100))
def test_any_header_is_a_range_within_the_file_or_none(header, size) -> None:
    """No text raises anything else, and no range reaches beyond the file."""
    for text in (header, f"bytes={header}"):
        try:
            span = parse_range(text, size)
        except Unsatisfiable:
            continue
        assert span is None or 0 <= span.start < span.end <= size


@given(st.text(max_size=80))
def test_any_name_makes_a_header_of_one_line(name) -> None:
    """Plain ASCII, without a way to end the header or to leave a folder."""
    header = disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
    assert "/" not in header
    assert "\\" not in header
