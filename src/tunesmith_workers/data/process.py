"""Turns a data file into training, validation and test files: uniform rows, dealt by seed, every row accounted for.

Run as ``python -m tunesmith_workers.data.process`` with the request on standard input. A row goes out, or to
``rejected.jsonl`` with its line and the reason; what was changed is counted by kind in the report.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.data.by_roles import is_tidy, picked
from tunesmith_workers.data.deidentify import ROW_SECONDS, Deidentifier
from tunesmith_workers.data.duplicates import Duplicates
from tunesmith_workers.data.explain import decoded
from tunesmith_workers.data.fast import Sorted, Sorting, look_closely, sort_out
from tunesmith_workers.data.normalise import Normaliser, ToShape
from tunesmith_workers.data.plain import KINDS, TO_MESSAGES, Plain
from tunesmith_workers.data.provenance import NAME as PROVENANCE
from tunesmith_workers.data.provenance import Input, Provenance, is_result, provenance_of
from tunesmith_workers.data.reader import LONGEST_ROW, Batch, NotData, Unreadable, open_regular
from tunesmith_workers.data.report import REPORT, REPORT_PAGE, page
from tunesmith_workers.data.shapes import Reading, RowFault
from tunesmith_workers.data.shuffle import HeldRows
from tunesmith_workers.data.split import NAMES, LineFile, OutputFolder, deal, exact_counts
from tunesmith_workers.data.tables import Source, open_data
from tunesmith_workers.data.tally import Tally
from tunesmith_workers.data.worker import serve
from tunesmith_workers.process.events import Paced, emit
from tunesmith_workers.process.faults import BadConfig, BadRows, listed

REJECTED = "rejected.jsonl"
_OWN = (*NAMES, REJECTED, REPORT, REPORT_PAGE, PROVENANCE)
_FIRST, _LAST = b"{}"
_encode = msgspec.json.Encoder().encode


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. Ratios sum to 1."""

    input_file: str
    output_dir: str
    ratios: tuple[float, float, float]
    shuffle: bool = True
    seed: int = 42
    to_shape: ToShape | None = None
    default_system: str | None = None
    deidentify: str | None = None
    locale: str | None = None
    policies_dir: str | None = None
    overwrite: bool = False
    longest_row: int = LONGEST_ROW
    row_seconds: float = ROW_SECONDS
    """How long the de-identification of a short row may compute; a longer one has more."""

    @property
    def options(self) -> dict[str, Any]:
        """What of it decides over the result."""
        left_out = ("input_file", "output_dir", "policies_dir", "overwrite", "row_seconds")
        return {name: getattr(self, name) for name in self.__struct_fields__ if name not in left_out}


def process(request: Request, sorting: Sorting = sort_out) -> dict[str, Any]:
    """Do it all; the answer is the report.

    Raises:
        BadRows: there is no such file, it is no data, or none of its rows can be used.
        BadConfig: the folder cannot be used.
        OSError: there is no room.
    """
    source, folder = Path(request.input_file), Path(request.output_dir)
    if source.parent == folder and source.name in _OWN:
        raise BadConfig(f"the result would replace the input, {source}", where="output_dir", mend="name another folder")
    with open_regular(source) as file:
        try:
            data = open_data(file, source.name, longest_row=request.longest_row, gives_way=True)
        except NotData as refusal:
            raise BadRows(refusal.message, where=str(source), mend=refusal.mend) from None
        output = OutputFolder(folder, own=_OWN)
        try:
            output.claim(overwrite=request.overwrite, is_earlier_result=is_result(folder))
            return _Processing(request, source, data, output, sorting).run()
        finally:
            output.leave()


class _Processing:
    """One file on its way."""

    def __init__(self, request: Request, source: Path, data: Source, output: OutputFolder, sorting: Sorting) -> None:
        self._request = request
        self._source = source
        self._data = data
        self._output = output
        self._sorting = sorting
        self._normalise = Normaliser(request.to_shape, request.default_system)
        self._deidentifier = _deidentifier(request)
        self._duplicates = Duplicates(output.unfinished)
        self._tally = Tally(self._duplicates)
        self._changes: Counter[str] = Counter()
        self._held = HeldRows(
            output.unfinished, expected_bytes=data.size, seed=request.seed if request.shuffle else None
        )
        self._sha256 = hashlib.sha256()
        self._done = 0
        self._paced = Paced()

    def run(self) -> dict[str, Any]:
        try:
            with self._output.file(REJECTED) as rejected:
                self._read_all(rejected)
            self._refuse_nothing()
            counts = exact_counts(self._held.count, self._request.ratios)
            emit("progress", phase="writing", rows=self._held.count)
            deal(self._held.in_order(), dict(zip(NAMES, counts, strict=True)), self._output)
            report = self._report(dict(zip(("train", "val", "test"), counts, strict=True)))
        finally:
            self._held.close()
            self._duplicates.close()
        self._write(REPORT, _pretty(report))
        self._write(REPORT_PAGE, page(report).encode())
        self._write(PROVENANCE, _pretty(self._provenance()))
        self._output.publish(last=PROVENANCE)
        return report

    def _read_all(self, rejected: LineFile) -> None:
        for part in self._data.parts(self._heard):
            if isinstance(part, Batch):
                self._held.add(self._batch(part, rejected))
                self._tally.keep_bounded()
                self._paced.emit("progress", phase="processing", bytes=self._done, total_bytes=self._data.size)
            else:
                self._unreadable(part, rejected)

    def _heard(self, block: bytes) -> None:
        self._sha256.update(block)
        self._done += len(block)

    def _batch(self, batch: Batch, rejected: LineFile) -> list[bytes]:
        """What goes out, as lines with their ends."""
        found = self._vouched_for(batch)
        for good in found.good:
            self._tally.conversations("messages", good.roles, good.columns)
        if not found.plain and not found.doubtful:
            return _as_they_came(batch.rows, batch)
        rows = [b""] * len(batch.rows)
        for good in found.good:
            _put(rows, good.places, _as_they_came(picked(batch.rows, good.places), batch))
        for part in found.others():
            if isinstance(part, Plain):
                _put(rows, part.places, self._converted(part))
            else:
                _put(rows, part, self._mended(batch, part, rejected))
        return [row for row in rows if row]

    def _vouched_for(self, batch: Batch) -> Sorted:
        vouches = batch.is_utf8 and self._normalise.leaves_tidy_messages and self._deidentifier is None
        kinds = KINDS if self._request.to_shape is None else TO_MESSAGES
        return (self._sorting if vouches else look_closely)(batch.rows, is_tidy, kinds)

    def _converted(self, plain: Plain) -> list[bytes]:
        self._tally.plain(plain)
        for change in plain.changes:
            self._changes[change] += len(plain.places)
        return plain.outgoing()

    def _mended(self, batch: Batch, places: Sequence[int], rejected: LineFile) -> list[bytes]:
        """What goes out for these rows; nothing for those that are blank or were rejected."""
        readings: list[Reading] = []
        rows: dict[int, dict[str, Any]] = {}
        for place in places:
            text = batch.rows[place].removesuffix(b"\n")
            if batch.may_be_blank and not text.strip():
                self._tally.blank_lines += 1
                continue
            is_json = False
            try:
                value = decoded(text)
                is_json = True
                normalised = self._normalise(value)
                row = self._deidentifier.row(normalised.row) if self._deidentifier else normalised.row
            except RowFault as fault:
                self._reject(batch.lines[place], fault, rejected, text, is_json=is_json)
                continue
            rows[place] = row
            readings.append(normalised.reading)
            self._changes.update(normalised.changes)
        self._tally.readings(readings)
        return [_encode(rows[place]) + b"\n" if place in rows else b"" for place in places]

    def _unreadable(self, part: Unreadable, rejected: LineFile) -> None:
        fault = RowFault(part.message, kind=part.kind)
        if part.breaks_array:
            raise BadRows(
                f"{part.message}; the rows after it cannot be read",
                where=f"{self._source}:{part.line}",
                mend=part.mend,
            )
        self._reject(part.line, fault, rejected, None, is_json=False)

    def _reject(self, line: int, fault: RowFault, rejected: LineFile, text: bytes | None, *, is_json: bool) -> None:
        self._tally.fault(line, fault)
        entry: dict[str, Any] = {"line": line, "field": fault.field, "reason": str(fault)}
        if self._deidentifier is not None:
            entry["withheld"] = "it was not de-identified; the line of the input has it"
        elif is_json and text is not None:
            entry["row"] = msgspec.Raw(msgspec.json.format(text, indent=-1))
        elif text is not None:
            entry["text"] = text.decode(errors="backslashreplace")
        entry["reason"] = str(fault).encode(errors="backslashreplace").decode()
        rejected.write_rows([_encode(entry) + b"\n"])

    def _refuse_nothing(self) -> None:
        if not self._held.count:
            faults = [f"line {error.line}: {error.message}" for error in self._tally.errors]
            raise BadRows(
                f"no row can be used:\n{listed(faults)}" if faults else "holds no rows",
                where=str(self._source),
                mend="POST /api/data/validate tells all that is wrong with a file",
            )

    def _report(self, counts: dict[str, int]) -> dict[str, Any]:
        stats = self._tally.stats()
        policy = self._deidentifier.policy if self._deidentifier else None
        return {
            "input_file": str(self._source),
            "output_dir": str(self._output.folder),
            "format": self._data.format,
            "total": self._held.count + self._tally.error_count,
            "written": self._held.count,
            "rejected": self._tally.error_count,
            "counts": counts,
            "changes": dict(self._changes.most_common()),
            "deidentified": {
                "policy_id": policy.id,
                "policy_version": policy.version,
                "counts": dict(self._deidentifier.counts.most_common()),
            }
            if policy and self._deidentifier
            else None,
            "files": {
                **{name.removesuffix(".json"): str(self._output.folder / name) for name in NAMES},
                "rejected": str(self._output.folder / REJECTED),
                "report": str(self._output.folder / REPORT),
                "report_page": str(self._output.folder / REPORT_PAGE),
                "provenance": str(self._output.folder / PROVENANCE),
            },
            "options": self._request.options,
            "errors": msgspec.to_builtins(self._tally.errors),
            "stats": {"bytes": self._data.size, **stats},
        }

    def _provenance(self) -> Provenance:
        source = Input(path=str(self._source), bytes=self._done, sha256=self._sha256.hexdigest())
        policy = self._deidentifier.policy if self._deidentifier else None
        return provenance_of(source, self._request.options, policy, self._output.written)

    def _write(self, name: str, content: bytes) -> None:
        with self._output.file(name) as file:
            file.write(content)


def _deidentifier(request: Request) -> Deidentifier | None:
    if request.deidentify is None:
        return None
    policies = Path(request.policies_dir) if request.policies_dir else None
    return Deidentifier.load(
        request.deidentify,
        policies_dir=policies,
        locale=request.locale,
        seed=request.seed,
        row_seconds=request.row_seconds,
    )


def _as_they_came(rows: Sequence[bytes], batch: Batch) -> list[bytes]:
    """Good rows, byte for byte but for what stands around them."""
    if batch.may_be_blank:
        return [row if row[-2] == _LAST and row[0] == _FIRST else row.strip() + b"\n" for row in rows]
    return [(msgspec.json.format(row, indent=-1) if b"\n" in row else row) + b"\n" for row in rows]


def _put(rows: list[bytes], places: Sequence[int], some: Sequence[bytes]) -> None:
    for place, row in zip(places, some, strict=True):
        rows[place] = row


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


if __name__ == "__main__":
    serve(Request, process)
