"""How far earlier attempts of a training were reported, kept below the run's folder so that another one goes on there.

wandb writes what it is given a while later, and a killed process takes the rest with it. So measurements are kept here until
an attempt has ended in order, and the next one logs again what is not known to have arrived.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tunesmith_workers.reporting.lines import Measured, Opening, decode_line, line_of


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of earlier attempts."""

    id: str
    """Of the run at wandb."""
    step: int
    """Everything up to it was logged, by attempts that ended in order."""


_decode_noted, _encode_noted = msgspec.json.Decoder(Noted).decode, msgspec.json.Encoder().encode


class Kept:
    """The files of one run."""

    def __init__(self, opening: Opening) -> None:
        """A training that was started by hand and begins anew is another run at wandb, and forgets the files of the one before."""
        folder = Path(opening.folder) / "wandb"
        folder.mkdir(exist_ok=True)
        self._noted, self._unsent = folder / "tunesmith.json", folder / "tunesmith-unsent.jsonl"
        noted = self._read()
        if noted is None or noted.id != (opening.run_id or (opening.resumes and noted.id)):
            self._unsent.unlink(missing_ok=True)
            noted = Noted(id=opening.run_id or uuid.uuid4().hex[:12], step=-1)
            self._write(noted)
        self.id, self.step = noted.id, noted.step

    def unsent(self) -> Iterator[Measured]:
        """What an attempt that was killed had measured, in its order."""
        if not self._unsent.exists():
            return
        with self._unsent.open("rb") as file:
            for line in file:
                try:
                    measured = decode_line(line)
                except msgspec.DecodeError:  # the last one, cut short
                    continue
                if isinstance(measured, Measured):
                    yield measured

    def add(self, measured: Measured) -> None:
        with self._unsent.open("ab") as file:
            file.write(line_of(measured))

    def all_sent(self, step: int) -> None:
        """An attempt has ended in order: all up to this step is where it belongs."""
        self._write(Noted(id=self.id, step=step))
        self._unsent.unlink(missing_ok=True)

    def _read(self) -> Noted | None:
        try:
            return _decode_noted(self._noted.read_bytes())
        except (OSError, msgspec.DecodeError):
            return None

    def _write(self, noted: Noted) -> None:
        beside = self._noted.with_suffix(".tmp")
        beside.write_bytes(_encode_noted(noted) + b"\n")
        beside.replace(self._noted)
