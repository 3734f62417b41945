"""The data door: checking a data file, and making training, validation and test files of it.

The work is done by worker processes, so a large file stalls nobody; the paths are checked here.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio.to_thread
import msgspec
from litestar import post
from litestar.params import JSONBody, QueryParameter

from tunesmith.api.access import NEEDS_READ, NEEDS_WRITE
from tunesmith.api.leaving import while_connected
from tunesmith.api.own_names import own_names
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.errors import Fault, InvalidInput, TunesmithError
from tunesmith.records import DatasetReference

_VALIDATE = "tunesmith_workers.data.validate"
_PROCESS = "tunesmith_workers.data.process"
_LONGEST_SECONDS = 24 * 3600.0
_LARGEST_SEED = 2**32 - 1

FilePath = Annotated[
    str,
    QueryParameter(
        min_length=1, max_length=4096, description="A file below the allowed roots, or an uploaded dataset."
    ),
]
MaxErrors = Annotated[int, QueryParameter(ge=0, le=1000, description="At most this many faults are told one by one.")]


class RowFaultView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, and where."""

    line: int
    """The line that the row begins on, from 1."""
    field: str | None
    message: str


class Bin(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """How many lengths lie from one number to another, both included."""

    from_: int
    to: int
    count: int


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """Lengths in characters."""

    count: int
    total: int
    mean: float
    min: int
    max: int
    histogram: list[Bin]


class DataStats(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the rows that can be used, and what was found in the others."""

    bytes: int
    shapes: dict[str, int]
    roles: dict[str, int]
    """Messages by role, under the roles' usual names."""
    turns: dict[str, int]
    """Rows by their number of messages; 64 stands for that many and more."""
    consecutive_turns: int
    """Messages that follow one of the same role."""
    characters: dict[str, Lengths]
    """Of whole rows (`row`), and by role or field."""
    duplicates: int
    """Rows that say the same as an earlier one."""
    empty_contents: int
    blank_lines: int
    faults: dict[str, int]
    """Rows that cannot be used, by reason."""


class DataVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a data file is."""

    valid: bool
    format: Literal["jsonl", "json", "csv", "parquet", "unknown"]
    total: int
    """Rows, good and bad."""
    valid_count: int
    error_count: int
    errors: list[RowFaultView]
    """The first ones."""
    stats: DataStats


class SplitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rows are dealt. The ratios sum to 1."""

    train_ratio: float = 0.8
    val_ratio: float = 0.1
    test_ratio: float = 0.1
    shuffle: bool = True
    seed: int = 42


class ProcessRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be made of which file."""

    input_file: str
    """A file below the allowed roots, or an uploaded dataset's id or name."""
    output_dir: str
    """Made if need be. A folder with other files is refused unless `overwrite` is set."""
    split_config: SplitConfig = SplitConfig()
    to_shape: Literal["messages", "conversations", "instruction", "prompt_completion"] | None = None
    """Without it, ShareGPT's turns (`from`, `value`) and `instruction` become `messages`; every other row keeps its shape."""
    default_system: str | None = None
    """A system message for conversations that have none."""
    deidentify: str | None = None
    """The policy that every text goes through."""
    locale: Literal["zh-CN", "en-US"] | None = None
    """For the de-identification; without it, each text by its script."""
    overwrite: bool = False


class Deidentified(msgspec.Struct, frozen=True, kw_only=True):
    """What was replaced."""

    policy_id: str
    policy_version: str
    counts: dict[str, int]


class ProcessedData(msgspec.Struct, frozen=True, kw_only=True):
    """The same as `report.json`: every row accounted for."""

    input_file: str
    output_dir: str
    format: Literal["jsonl", "json", "csv", "parquet"]
    total: int
    written: int
    rejected: int
    counts: dict[str, int]
    """Rows in `train`, `val` and `test`."""
    changes: dict[str, int]
    """What was mended, by kind."""
    deidentified: Deidentified | None = None
    files: dict[str, str]
    options: dict[str, Any]
    errors: list[RowFaultView]
    """The first rejected rows; `rejected.jsonl` has all of them."""
    stats: DataStats


@post("/api/data/validate", opt=NEEDS_READ, tags=["Data"], status_code=200)
async def validate_data(request: HttpRequest, file_path: FilePath, max_errors: MaxErrors = 100) -> DataVerdict:
    """Look at every row: how many can be used for training, what is wrong with the others, and what is in them."""
    services = services_of(request)
    path = await anyio.to_thread.run_sync(_input, services, file_path, "file_path")
    asked = {"file": str(path), "max_errors": max_errors, "scratch": str(services.settings.state_dir.resolve())}
    with own_names(services):
        answer = await while_connected(request, services.calls.call(_VALIDATE, asked, seconds=_LONGEST_SECONDS))
    return msgspec.convert(answer, DataVerdict)


@post("/api/data/process", opt=NEEDS_WRITE, tags=["Data"], status_code=200)
async def process_data(request: HttpRequest, data: JSONBody[ProcessRequest]) -> ProcessedData:
    """Make `train.json`, `val.json` and `test.json` of a data file: rows made uniform, dealt by seed, none lost."""
    services = services_of(request)
    split = data.split_config
    _refuse_wrong_split(split)
    path = await anyio.to_thread.run_sync(_input, services, data.input_file, "input_file")
    folder = await anyio.to_thread.run_sync(services.references.output_folder, data.output_dir, "output_dir")
    asked = {
        "input_file": str(path),
        "output_dir": str(folder),
        "ratios": (split.train_ratio, split.val_ratio, split.test_ratio),
        "shuffle": split.shuffle,
        "seed": split.seed,
        "to_shape": data.to_shape,
        "default_system": data.default_system,
        "deidentify": data.deidentify,
        "locale": data.locale,
        "policies_dir": str(services.paths.policies.resolve()),
        "overwrite": data.overwrite,
    }
    with own_names(services):
        answer = await while_connected(request, services.calls.call(_PROCESS, asked, seconds=_LONGEST_SECONDS))
    return msgspec.convert(answer, ProcessedData)


def _input(services: Services, name: str, where: str) -> Path:
    try:
        path = services.references.dataset(DatasetReference(name=name)).path
    except TunesmithError as error:
        raise type(error)(error.message, where=where, mend=error.mend) from error
    assert path is not None, "a dataset that was found has a path"
    return Path(path)


def _refuse_wrong_split(split: SplitConfig) -> None:
    ratios = {name: getattr(split, name) for name in ("train_ratio", "val_ratio", "test_ratio")}
    faults = [
        Fault(message=f"must lie between 0 and 1, not {ratio:g}", where=f"split_config.{name}")
        for name, ratio in ratios.items()
        if not 0 <= ratio <= 1
    ]
    if not faults and not math.isclose(sum(ratios.values()), 1, abs_tol=1e-6):
        faults.append(
            Fault(
                message=f"the three ratios sum to {sum(ratios.values()):g}, not to 1",
                where="split_config",
                mend="name all three; a ratio that is left out is 0.8, 0.1 or 0.1",
            )
        )
    if not 0 <= split.seed <= _LARGEST_SEED:
        faults.append(Fault(message=f"must lie between 0 and {_LARGEST_SEED}", where="split_config.seed"))
    if faults:
        raise InvalidInput("the rows cannot be split like that", faults=tuple(faults))


HANDLERS = [validate_data, process_data]
