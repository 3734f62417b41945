"""One old job after the other becomes a dataset of this service, and if that is asked for, a job.

Whatever is missing is told with the job, and the others go on. What is here already stays as it is: an import that was
interrupted is repeated, and goes on where it was. Files are held in unnamed temporary files: nothing of them is left behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import BinaryIO

import msgspec

from tunesmith.errors import NotFound, TunesmithError, Unauthenticated, Unavailable
from tunesmith.from_openai.account import Account
from tunesmith.from_openai.here import Here, Imported
from tunesmith.from_openai.old_jobs import TRAINING, OldJob, recipe_of, request_for, train_config_for

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows how far something of so many bytes has come."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one old job."""

    job: str
    model: str = ""
    status: str = ""
    dataset: str | None = None
    """Its name; None: nothing could be made."""
    is_new: bool = False
    """Whether this import has made it."""
    files: list[str] = []
    """Those that are here."""
    rows: dict[str, int] = {}
    """By file."""
    trains_on: str | None = None
    """The base model here: a folder, or a hub id that a run fetches."""
    started: str | None = None
    """The job here that trains or has trained on it."""
    start_command: str | None = None
    """What starts it, where it is ready and not started."""
    missing: list[str] = []
    """What is not here, and what to do."""
    notes: list[str] = []
    """What else is different here."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of every job."""

    models: dict[str, str]
    """Base models of this service by OpenAI's names, beside the aliases."""
    auto: bool
    start: bool


class Importer:
    """Imports jobs one by one."""

    def __init__(self, here: Here, account: Callable[[], Account], choice: Choice, bar: Bar) -> None:
        """``account`` is asked for only when something has to come from there."""
        self._here = here
        self._account = account
        self._choice = choice
        self._bar = bar
        self._found = here.imported()

    def known(self, job_id: str) -> OldJob | None:
        """The old job, where its dataset is here."""
        found = self._found.get(job_id)
        return found.job if found is not None else None

    def take(self, job: OldJob) -> Outcome:
        """Have everything of the job here. Never raises for what is wrong with this job alone.

        Raises:
            Unavailable: this service is gone.
        """
        missing: list[str] = []
        before = self._found.get(job.id)
        imported = before
        try:
            if imported is None or imported.lacks:
                imported = self._fetch(job, imported, missing)
            if imported is not None:
                self._configure(imported, missing)
        except Unavailable:
            raise
        except TunesmithError as error:
            missing.append(str(error))
        is_new = before is None and imported is not None
        outcome = Outcome(
            job=job.id, model=job.model, status=job.status, missing=missing, notes=_notes(job), is_new=is_new
        )
        if imported is None:
            return outcome
        self._found[job.id] = imported
        files = sorted(imported.files)
        outcome = msgspec.structs.replace(outcome, dataset=imported.name, files=files, rows=imported.rows)
        return self._ready(imported, outcome)

    def _fetch(self, job: OldJob, imported: Imported | None, missing: list[str]) -> Imported | None:
        """Download what is not here, then make the dataset: it says how many rows there are."""
        wanted = {name: file for name, file in job.files.items() if imported is None or name not in imported.files}
        with ExitStack() as stack:
            came: dict[str, BinaryIO] = {}
            originals: dict[str, str] = {}
            for name, old_id in wanted.items():
                content: BinaryIO = stack.enter_context(tempfile.TemporaryFile())
                try:
                    originals[name] = self._download(job, name, old_id, content)
                except (NotFound, Unauthenticated, Unavailable) as error:
                    missing.append(_gone(name, old_id, error))
                else:
                    came[name] = content
            if imported is None and TRAINING not in came:
                return None
            if imported is None:
                imported = self._here.create(job, originals, {name: _rows_in(file) for name, file in came.items()})
            for name, file in came.items():
                file.seek(0)
                try:
                    imported = self._here.upload(imported, name, file)
                except Unavailable:
                    raise
                except TunesmithError as error:
                    missing.append(f"{name} could not be kept here: {error}")
        return imported

    def _download(self, job: OldJob, name: str, old_id: str, into: BinaryIO) -> str:
        account = self._account()
        file = account.file(old_id)
        with self._bar(f"{job.id}: {name} ({file.name})", file.bytes) as progress:
            account.download(old_id, file.bytes, into, progress)
        return file.name

    def _configure(self, imported: Imported, missing: list[str]) -> None:
        name = recipe_of(imported.job)
        recipe = self._here.recipes.get(name) if name is not None else None
        if recipe is None:
            needed = f"the recipe {name}, which is not here" if name is not None else "a recipe that is not known here"
            missing.append(
                f"the method {imported.job.kind} needs {needed} (its data is here: train on it with another recipe, or "
                "import again when there is one)"
            )
        elif not imported.has_config:
            self._here.give_config(imported, train_config_for(imported.job, recipe, auto=self._choice.auto))

    def _ready(self, imported: Imported, outcome: Outcome) -> Outcome:
        """Whether it could be started, and if that is asked for, the started job."""
        job = imported.job
        missing = list(outcome.missing)
        model = self._choice.models.get(job.model, job.model)
        base = self._base(job, model, missing)
        outcome = msgspec.structs.replace(outcome, missing=missing, trains_on=base)
        started = self._here.started.get(imported.files.get(TRAINING, ""))
        if started is not None:
            return msgspec.structs.replace(outcome, started=started)
        if base is None or TRAINING not in imported.files or recipe_of(job) not in self._here.recipes:
            return outcome
        if not self._choice.start:
            return msgspec.structs.replace(outcome, start_command=_start_command(job, self._choice))
        try:
            started = self._here.start(self._request(imported, model))
        except Unavailable:
            raise
        except TunesmithError as error:
            return msgspec.structs.replace(outcome, missing=[*missing, f"it could not be started: {error}"])
        return msgspec.structs.replace(outcome, started=started)

    def _base(self, job: OldJob, model: str, missing: list[str]) -> str | None:
        try:
            return self._here.base_of(model)
        except Unavailable:
            raise
        except TunesmithError as error:
            missing.append(
                f"{error.message} (give --model {job.model}=LOCAL, or set an alias for {job.model} and restart the service)"
            )
            return None

    def _request(self, imported: Imported, model: str) -> dict[str, object]:
        request = request_for(imported.job, model=model, files=imported.files, auto=self._choice.auto)
        if self._choice.auto:
            # The dataset's train config may hold the numbers that are to be left to the rule.
            request |= {"recipe": recipe_of(imported.job), "train_config": {}}
        return request


def _start_command(job: OldJob, choice: Choice) -> str:
    words = ["tunesmith import-openai --start --job", job.id]
    if job.model in choice.models:
        words.append(f"--model {job.model}={choice.models[job.model]}")
    return " ".join([*words, *(["--auto"] if choice.auto else [])])


def _notes(job: OldJob) -> list[str]:
    kinds = sorted({str(one.get("type")) for one in job.integrations or []})
    return [f"the integration {kind} is not taken along" for kind in kinds]


def _gone(name: str, old_id: str, error: TunesmithError) -> str:
    what = "training file" if name == TRAINING else "validation file"
    if isinstance(error, NotFound):
        return f"the {what} {old_id} is gone at OpenAI (upload the rows yourself, if you still have them)"
    return f"the {what} {old_id} could not be downloaded: {error}"


def _rows_in(file: BinaryIO) -> int:
    file.seek(0)
    return sum(1 for line in file if line.strip())
