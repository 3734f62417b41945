"""What an OpenAI account holds: its fine-tuning jobs, and their files as they come. Reads, and changes nothing there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from tunesmith.errors import TunesmithError, Unavailable
from tunesmith.from_openai.old_jobs import OldJob, read_job
from tunesmith.from_openai.sdk import connect, explained, load_sdk

_SERVICE = "OpenAI"
_PAGE = 100
_MOST_JOBS = 100_000
_SILENT_SECONDS = 60.0
_CHUNK = 256 * 1024


class OldFile(NamedTuple):
    """A file of the account."""

    name: str
    bytes: int


class Account:
    """An account, by its key."""

    def __init__(self, base_url: str, key: str) -> None:
        self._sdk = load_sdk()
        self._client = connect(self._sdk, base_url, key, timeout_seconds=_SILENT_SECONDS)

    def jobs(self) -> Iterator[OldJob]:
        """All of them, newest first, page by page.

        Raises:
            TunesmithError: the list does not end, or one of the errors of ``sdk.explained``.
        """
        seen: set[str] = set()
        with explained(self._sdk, _SERVICE):
            for told in self._client.fine_tuning.jobs.list(limit=_PAGE):
                job = _job(told)
                if job.id in seen or len(seen) >= _MOST_JOBS:
                    raise TunesmithError(
                        "the list of jobs does not end", where="--openai-base-url", mend="name the jobs with --job"
                    )
                seen.add(job.id)
                yield job

    def job(self, job_id: str) -> OldJob:
        """One job. Raises NotFound, and the other errors of ``sdk.explained``."""
        with explained(self._sdk, _SERVICE):
            return _job(self._client.fine_tuning.jobs.retrieve(job_id))

    def file(self, file_id: str) -> OldFile:
        """What a file is called, and how large it is. Raises NotFound."""
        with explained(self._sdk, _SERVICE):
            found = self._client.files.retrieve(file_id)
            return OldFile(str(found.filename), int(found.bytes))

    def download(self, file_id: str, size: int, into: BinaryIO, progress: Callable[[int], None]) -> None:
        """Write a file's bytes as they come. ``progress`` is told of each part.

        Raises:
            Unavailable: it did not come whole.
            NotFound: it is gone.
        """
        came = 0
        with explained(self._sdk, _SERVICE), self._client.files.with_streaming_response.content(file_id) as response:
            for chunk in _unbroken(response.iter_bytes(_CHUNK), file_id):
                into.write(chunk)
                came += len(chunk)
                progress(len(chunk))
        if came != size:
            raise Unavailable(
                f"the file {file_id} came with {came} of its {size} bytes", mend="run the command again to go on"
            )

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _job(told: Any) -> OldJob:
    return read_job(told.to_dict(mode="json"))


def _unbroken(chunks: Iterator[bytes], file_id: str) -> Iterator[bytes]:
    """The package does not translate what breaks in the middle of an answer, and its HTTP library differs by its major."""
    while True:
        try:
            chunk = next(chunks, None)
        except Exception as error:
            raise Unavailable(
                f"the download of {file_id} broke: {error or type(error).__name__}",
                mend="run the command again to go on",
            ) from error
        if chunk is None:
            return
        yield chunk
