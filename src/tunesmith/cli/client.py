"""Talking to the service: where it is, which key it gets, and its problem documents turned back into errors.

Nothing is printed here. Following a run's events is in ``events``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from tunesmith.errors import (
    Conflict,
    Fault,
    Forbidden,
    InvalidInput,
    NotFound,
    TunesmithError,
    Unauthenticated,
    Unavailable,
)
from tunesmith.paths import StatePaths
from tunesmith.server.state_lock import holder
from tunesmith.settings import load

DEFAULT_URL = "http://127.0.0.1:8000"
KEY_VARIABLE = "TUNESMITH_API_KEY"
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# The answer comes when the disk has all of it.
_UPLOAD_TIMEOUT = httpx.Timeout(300.0, connect=5.0)
_PAGE = 500
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ERRORS: Mapping[int, type[TunesmithError]] = MappingProxyType(
    {
        401: Unauthenticated,
        403: Forbidden,
        404: NotFound,
        409: Conflict,
        422: InvalidInput,
        502: Unavailable,
        503: Unavailable,
        504: Unavailable,
    }
)

Locate = Callable[[], str]


class Service:
    """The service, as the commands see it. Every refusal is raised as a ``TunesmithError`` with all that it said."""

    def __init__(self, locate: Locate, key: str | None = None) -> None:
        self._locate = locate
        self._key = key
        self._client = self._connect()

    @classmethod
    def found_by(cls, locate: Locate) -> Self:
        """With the key from the environment, if there is one.

        Raises:
            InvalidInput: it cannot be a key.
        """
        return cls(locate, _key_from_environment())

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine, so that it sees the same files."""
        return self._client.base_url.host in _LOOPBACK

    @property
    def url(self) -> str:
        return str(self._client.base_url).rstrip("/")

    @property
    def key(self) -> str | None:
        """What it is sent, for other clients of the same service."""
        return self._key

    def get(self, path: str, **params: Any) -> Any:
        given = {name: value for name, value in params.items() if value is not None}
        return self._ask("GET", path, params=given)

    def listed(self, path: str, *, limit: int, **params: Any) -> list[Any]:
        """Up to ``limit`` items of a list that answers plain arrays: the header ``Link`` names the next page."""
        query = {"limit": min(_PAGE, limit), **{name: value for name, value in params.items() if value is not None}}
        found: list[Any] = []
        address = f"{path}?{httpx.QueryParams(query)}"
        while address and len(found) < limit:
            response = self._response("GET", address)
            found += self._content(response)
            address = response.links.get("next", {}).get("url", "")
        return found[:limit]

    def pages(self, path: str, items: str, *, limit: int, **params: Any) -> list[Any]:
        """Up to ``limit`` of what a list has under the name ``items``, page by page."""
        found: list[Any] = []
        cursor = None
        while len(found) < limit:
            page = self.get(path, limit=min(_PAGE, limit - len(found)), cursor=cursor, **params)
            found += page[items]
            cursor = page["cursor"]
            if cursor is None:
                break
        return found

    def post(
        self,
        path: str,
        content: Any = None,
        *,
        patience_seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """``patience_seconds`` is for what the service answers only when it is done, such as a cancel."""
        timeout = _TIMEOUT if patience_seconds is None else httpx.Timeout(patience_seconds, connect=5.0)
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._ask("POST", path, json=content, timeout=timeout, headers=headers)

    def delete(self, path: str, *, patience_seconds: float | None = None, **params: Any) -> Any:
        """``patience_seconds`` as for ``post``."""
        timeout = _TIMEOUT if patience_seconds is None else httpx.Timeout(patience_seconds, connect=5.0)
        given = {name: value for name, value in params.items() if value is not None}
        return self._ask("DELETE", path, params=given, timeout=timeout)

    def upload(self, path: str, name: str, content: Any, *, idempotency_key: str | None = None) -> Any:
        """Put one file, read from ``content`` as it goes out."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._ask("PUT", path, files={"file": (name, content)}, timeout=_UPLOAD_TIMEOUT, headers=headers)

    @contextmanager
    def stream(
        self, path: str, headers: Mapping[str, str], content: Any = None, *, silent_seconds: float = 45.0
    ) -> Iterator[httpx.Response]:
        """An answer whose body is read as it comes. With ``content``, it is posted as JSON.

        ``silent_seconds`` is for what may say nothing for a while; an idle event stream says something every 15 seconds.

        Raises:
            Unavailable: the connection could not be made, or broke while reading.
        """
        with (
            self._explained(),
            self._client.stream(
                "GET" if content is None else "POST",
                path,
                headers=dict(headers),
                json=content,
                timeout=httpx.Timeout(silent_seconds, connect=5.0),
            ) as response,
        ):
            if response.is_error:
                response.read()
                raise self._refusal(response)
            yield response

    def find_again(self) -> None:
        """Look up the address once more: a service that was restarted may listen elsewhere."""
        self.close()
        self._client = self._connect()

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> httpx.Client:
        url = self._locate()
        parts = _checked(url)
        return httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=_TIMEOUT,
            # A proxy that the environment names is for the world outside, not for this machine.
            trust_env=parts not in _LOOPBACK,
        )

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        return self._content(self._response(method, path, **options))

    def _response(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._explained():
            response = self._client.request(method, path, **options)
        if not response.is_success:
            raise self._refusal(response)
        return response

    def _content(self, response: httpx.Response) -> Any:
        try:
            return msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            raise self._stranger(response) from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise Unavailable(
                f"no service answers at {self.url} ({error})",
                mend="start one with `tunesmith serve`, or say where it is with --url or TUNESMITH_URL",
            ) from error
        except httpx.TimeoutException as error:
            raise Unavailable(
                f"the service at {self.url} did not answer in time", mend="see its log; try again"
            ) from error
        except httpx.HTTPError as error:
            raise Unavailable(f"the connection to {self.url} broke: {error}", mend="try again") from error

    def _refusal(self, response: httpx.Response) -> TunesmithError:
        """The error that a problem document tells of, or an answer in OpenAI's form."""
        try:
            problem = _problem_in(response.content)
        except msgspec.DecodeError:
            return self._stranger(response)
        mend = problem.mend
        if response.status_code == 401:
            mend = f"set {KEY_VARIABLE} to a valid key; `tunesmith keys create` makes one"
            if self._key:
                mend = f"{KEY_VARIABLE} holds a key that is unknown, wrong or revoked; set another"
        kind = _ERRORS.get(response.status_code, TunesmithError)
        return kind(problem.detail or problem.title, where=problem.where, mend=mend, faults=problem.errors)

    def _stranger(self, response: httpx.Response) -> TunesmithError:
        kind = _ERRORS.get(response.status_code, TunesmithError)
        return kind(
            f"what answers at {self.url} does not look like Tunesmith (HTTP {response.status_code})",
            mend="say where the service is with --url or TUNESMITH_URL",
        )


class _Problem(msgspec.Struct):
    """A problem document, as far as it is shown to people."""

    title: str
    detail: str = ""
    where: str | None = None
    mend: str | None = None
    errors: tuple[Fault, ...] = ()


class _OpenAIError(msgspec.Struct):
    """What is wrong, from the OpenAI-shaped door. Its message says where and how to fix it, too."""

    message: str


class _OpenAIAnswer(msgspec.Struct):
    error: _OpenAIError


_decode_problem = msgspec.json.Decoder(_Problem).decode
_decode_openai = msgspec.json.Decoder(_OpenAIAnswer).decode


def _problem_in(content: bytes) -> _Problem:
    try:
        return _decode_problem(content)
    except msgspec.DecodeError:
        return _Problem(title=_decode_openai(content).error.message)


def locator(url: str | None) -> Locate:
    """How to find the service: at ``url``; else where the holder of the state folder listens; else at the default."""
    if url:
        return lambda: url

    def by_lock() -> str:
        settings, _ = load()
        return address_of(settings.state_dir) or DEFAULT_URL

    return by_lock


def address_of(state_dir: Path) -> str | None:
    """Where the server that holds this state folder can be reached; None when there is none."""
    held_by = holder(StatePaths(state_dir).lock)
    if held_by is None or held_by.address is None:
        return None
    # One that listens on every address of the machine is reached on this one.
    return held_by.address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def run_path(run_id: str, *rest: str) -> str:
    """The address of a run below the service.

    Raises:
        NotFound: what is given cannot be an id, and would be taken for another address.
    """
    if "/" in run_id or run_id in ("", ".", ".."):
        raise NotFound(f"there is no run {run_id!r}", mend="`tunesmith runs list` shows them")
    return "/".join(["/v1/runs", quote(run_id, safe=""), *rest])


def _key_from_environment() -> str | None:
    """Checked before it is sent: what refuses a header later shows all of it."""
    key = os.environ.get(KEY_VARIABLE) or None
    if key is None or all("!" <= character <= "~" for character in key):
        return key
    raise InvalidInput(
        "the key in this environment variable has a character that no key has: a space, a line end, or one outside ASCII",
        where=KEY_VARIABLE,
        mend="set it to what `tunesmith keys create` printed",
    )


def _checked(url: str) -> str | None:
    """The host of an address that can be used."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or True)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput(f"{url!r} is not an address", where="--url", mend=f"write it like {DEFAULT_URL}")
    return parts.hostname
