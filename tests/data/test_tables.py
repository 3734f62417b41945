"""CSV, Parquet and gzip: what comes out of a table is what the same rows are as JSON Lines."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from data_parts import GOOD, TURNS, everything, processed, verdict, write

from tunesmith_workers.process.faults import BadRows

CSV = 'instruction,input,output\nsay,hi,hello\n"two\nlines",,"a ""quoted"" word, and 界"\n'
ROWS = [
    {"instruction": "say", "input": "hi", "output": "hello"},
    {"instruction": "two\nlines", "output": 'a "quoted" word, and 界'},
]


def results(path: Path, out: Path) -> list:
    processed(path, out, (1, 0, 0), shuffle=False)
    return everything(out)


@pytest.mark.parametrize("name", ["a.csv", "data.bin"])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_is_read_by_its_columns(tmp_path, name, separator, mark):
    """Told by the names in its first row, whatever the file is called and whatever stands between the cells."""
    text = CSV.replace(",", separator).replace(f"word{separator} and", "word, and")
    (tmp_path / name).write_text(mark + text, newline="")
    expected = results(write(tmp_path / "same.jsonl", ROWS), tmp_path / "expected")
    assert results(tmp_path / name, tmp_path / "out") == expected
    found = verdict(tmp_path / name)
    assert (found["valid"], found["format"], found["total"]) == (True, "csv", 2)


def test_messages_and_scores_in_cells_are_what_they_say(tmp_path):
    """Conversations as JSON; a score as a number; what is neither is a fault of its row, with its line."""
    quoted = json.dumps(TURNS).replace('"', '""')
    (tmp_path / "a.csv").write_text(f'id,messages\n1,"{quoted}"\n2,not a list\n3\n4,"{quoted}"\n')
    found = verdict(tmp_path / "a.csv")
    assert found["valid_count"] == 2
    assert [error["line"] for error in found["errors"]] == [3, 4]
    assert "has 1 cells, and the table has 2 columns" in found["errors"][1]["message"]
    assert results(tmp_path / "a.csv", tmp_path / "out")[0] == {"id": "1", **GOOD}
    (tmp_path / "b.csv").write_text("prompt,response,score\na,b,0.5\na,b,high\n")
    assert [error["line"] for error in verdict(tmp_path / "b.csv")["errors"]] == [3]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b'prompt,completion\na,"never closed\n', "CSV"), (b"prompt,completion\na,\xe4\n", "UTF-8")],
)
def test_a_broken_table_is_told_with_its_line(tmp_path, content, said):
    """Nothing is made of it: what follows cannot be told apart."""
    (tmp_path / "a.csv").write_bytes(content)
    assert said in verdict(tmp_path / "a.csv")["errors"][0]["message"]
    with pytest.raises(BadRows) as refused:
        processed(tmp_path / "a.csv", tmp_path / "out")
    assert refused.value.where == f"{tmp_path / 'a.csv'}:2"


@pytest.mark.parametrize(
    ("content", "line", "said", "mend"),
    [
        (
            'prompt,completion\n"x" y,b\nok,ok',
            2,
            "a quote opened in this row is closed, and the cell goes on",
            "quote inside",
        ),
        ('prompt,completion\nx,"y\nz,"w" v', 2, "is closed in line 3, and the cell goes on", "quote inside"),
        ('prompt,completion\nok,ok\na,"never\nx,y', 3, "a quote opened in this row is never closed", "quote inside"),
        ("prompt,completion\ra,b\rc,d", 1, "a line ends with a carriage return alone", "line ends"),
        ("prompt,completion\na," + "x" * 3000 + "\n", 2, "a cell is longer than 2000 characters", "shorten"),
        (
            "a,prompt, a,b,prompt,b,a,,\n1,2,3,4,5,6,7,8,9\n",
            1,
            "names these columns more than once: a, prompt, b",
            "name",
        ),
    ],
)
def test_what_ends_a_table_is_said_in_the_words_of_tables(tmp_path, content, line, said, mend):
    """The line where the quote was opened, the columns that are named twice; and nothing of arrays."""
    (tmp_path / "a.csv").write_text(content, newline="")
    (error,) = verdict(tmp_path / "a.csv", longest_row=2000)["errors"]
    assert error["line"] == line
    assert said in error["message"]
    assert mend in error["message"]
    with pytest.raises(BadRows) as refused:
        processed(tmp_path / "a.csv", tmp_path / "out", longest_row=2000)
    assert refused.value.where == f"{tmp_path / 'a.csv'}:{line}"
    assert said in str(refused.value)
    assert mend in refused.value.mend
    assert "array" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl.gz", json.dumps(GOOD) + "\n"), ("a.json.gz", json.dumps([GOOD])), ("a.csv.gz", CSV)]
)
def test_what_gzip_holds_is_read(tmp_path, name, text):
    """JSON Lines, an array or CSV; the provenance names the very file that was given."""
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    plain = tmp_path / name.removesuffix(".gz")
    plain.write_text(text, newline="")
    assert results(tmp_path / name, tmp_path / "out") == results(plain, tmp_path / "expected")
    origin = json.loads((tmp_path / "out/provenance.json").read_text())["input"]
    assert origin["bytes"] == (tmp_path / name).stat().st_size
    assert verdict(tmp_path / name)["valid"]


def test_a_damaged_archive_is_told(tmp_path):
    """One that was cut off: nothing is made of it."""
    whole = gzip.compress((json.dumps(GOOD) + "\n").encode() * 100_000)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert "damaged" in verdict(tmp_path / "a.jsonl.gz")["errors"][-1]["message"]
    with pytest.raises(BadRows, match="damaged"):
        processed(tmp_path / "a.jsonl.gz", tmp_path / "out")
    (tmp_path / "b.gz").write_bytes(b"\x1f\x8bnothing of the kind")
    with pytest.raises(BadRows, match="damaged"):
        processed(tmp_path / "b.gz", tmp_path / "out")


def test_one_object_over_several_lines_is_named_as_such(tmp_path):
    """Not as many broken lines; and what would write it on one line."""
    (tmp_path / "a.json").write_text(json.dumps(GOOD, indent=2))
    (fault,) = verdict(tmp_path / "a.json")["errors"]
    assert "is one JSON object over several lines" in fault["message"]
    with pytest.raises(BadRows, match="one JSON object over several lines") as refused:
        processed(tmp_path / "a.json", tmp_path / "out")
    assert "jq -c" in str(refused.value.mend)


def test_parquet_is_read(tmp_path):
    """Nested columns as they are, and nulls left out."""
    arrow = pytest.importorskip("pyarrow", reason="the extra `formats` is not installed")
    from pyarrow import parquet  # only where it is installed

    rows = [{"messages": TURNS, "id": number, "note": None if number else "x"} for number in range(2500)]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = results(tmp_path / "a.parquet", tmp_path / "out")
    assert found[:2] == [{"messages": TURNS, "id": 0, "note": "x"}, {"messages": TURNS, "id": 1}]
    assert len(found) == 2500
    assert verdict(tmp_path / "a.parquet")["format"] == "parquet"
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    assert "damaged Parquet file" in verdict(tmp_path / "b.parquet")["errors"][0]["message"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path):
    """The extra is named, in a process that has no pyarrow."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from tunesmith_workers.data.tables import open_data\n"
        "from tunesmith_workers.process.faults import PackageMissing\n"
        "try:\n    open_data(open(sys.argv[1], 'rb'), 'a.parquet')\n"
        "except PackageMissing as error:\n    print(error.mend)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.parquet")], capture_output=True, text=True, check=True
    )
    assert "tunesmith[formats]" in done.stdout
