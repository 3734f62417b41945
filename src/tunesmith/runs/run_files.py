"""The files that a run wrote, as they lie in its folder, and what each is for.

They are all files below ``output/`` and below complete checkpoints in ``checkpoints/``, and whatever else in the folder
the run reported by an ``artifact``, ``checkpoint`` or ``result`` event. Symbolic links are never followed, and names that
begin with a dot are somebody's unfinished work.
"""

from __future__ import annotations

import heapq
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tunesmith.contract.manifest import MANIFEST
from tunesmith.paths import RunPaths
from tunesmith.runs.derived import read_reported

Place: TypeAlias = tuple[str, ...]
"""A path below the run's folder, by its parts. Bytes that are no UTF-8 are in it as surrogates."""

_DEEPEST = 32

# The first that fits names the kind. Weights come after the files that stand beside them under similar names.
_KINDS = (
    ("adapter", re.compile(r"adapter_(model|config)\.\w+")),
    ("tokenizer", re.compile(r"(tokenizer|vocab|merges|special_tokens_map|added_tokens|chat_template)[\w-]*\.\w+")),
    ("predictions", re.compile(r"predictions.*\.jsonl?")),
    ("report", re.compile(r"report.*\.(json|html|md|txt)")),
    ("metrics", re.compile(r".*metrics.*\.(jsonl?|csv)|(all|train|eval)_results\.json")),
    ("config", re.compile(r".*config\.json|.*\.ya?ml")),
    ("log", re.compile(r".*\.log")),
    ("model", re.compile(r".*\.(safetensors|safetensors\.index\.json|bin|pth?|onnx|onnx\.data|gguf)")),
)


class WrittenFile(NamedTuple):
    """A file as it is now."""

    place: Place
    kind: str
    bytes: int
    modified_ns: int


def written_files(run: RunPaths, after: Place = ()) -> Iterator[WrittenFile]:
    """Every file whose place comes after ``after``, in order of place. Looks no further than it is iterated."""
    reported: dict[Place, str] = {tuple(place.split("/")): kind for place, kind in read_reported(run).items()}
    roots = {("checkpoints",), ("output",), *(place for place in reported if place[0] not in ("checkpoints", "output"))}
    found = heapq.merge(*(_files(run.folder, root, after) for root in sorted(roots)))
    previous: Place = ()
    for place, status in found:
        if place > after and place != previous:
            yield WrittenFile(place, _kind_of(place, reported), status.st_size, status.st_mtime_ns)
        previous = place


def _files(folder: Path, root: Place, after: Place) -> Iterator[tuple[Place, os.stat_result]]:
    """The files at and below one place, in order; nothing where a link is on the way."""
    path, status = folder, None
    for part in root:
        path /= part
        try:
            status = path.lstat()
        except OSError:
            return
        if not stat.S_ISDIR(status.st_mode):
            break
    if status is None:
        return
    if stat.S_ISREG(status.st_mode) and path == folder.joinpath(*root):
        yield root, status
    elif stat.S_ISDIR(status.st_mode):
        yield from _walk(path, root, after)


def _walk(folder: Path, place: Place, after: Place) -> Iterator[tuple[Place, os.stat_result]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        below = (*place, entry.name)
        if entry.name.startswith(".") or below < after[: len(below)]:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue  # it has just gone
        if stat.S_ISREG(status.st_mode):
            yield below, status
        elif stat.S_ISDIR(status.st_mode) and len(below) < _DEEPEST and _offered(folder / entry.name, below):
            yield from _walk(folder / entry.name, below, after)


def _offered(folder: Path, place: Place) -> bool:
    """A checkpoint without its manifest, which is written last, is not complete."""
    return place[:-1] != ("checkpoints",) or (folder / MANIFEST).is_file()


def _kind_of(place: Place, reported: Mapping[Place, str]) -> str:
    if place in reported:
        return reported[place]
    around = next(
        (reported[place[:length]] for length in range(len(place) - 1, 0, -1) if place[:length] in reported), None
    )
    if place[0] == "checkpoints":
        return "checkpoint"
    if around not in (None, "model"):  # beside a model's weights lie its tokenizer and configs
        return around
    return next((kind for kind, named in _KINDS if named.fullmatch(place[-1])), around or "file")
