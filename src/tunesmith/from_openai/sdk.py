"""The package `openai`, found when it is needed, and its errors in words of ours. Sends nothing by itself.

It is loaded by name: the package is an extra, and its majors differ in what they bring along.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tunesmith.errors import Busy, InvalidInput, NotFound, TunesmithError, Unauthenticated, Unavailable

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_RETRIES = 4
_LONGEST_MESSAGE = 500
_LONGEST_KEY = 10_000


def load_sdk() -> Any:
    """The module `openai`.

    Raises:
        Unavailable: it is not installed.
    """
    if importlib.util.find_spec("openai") is None:
        raise Unavailable(
            "talking to OpenAI needs the package openai, which is not installed here",
            mend="install the `openai` extra: pip install 'tunesmith[openai]'",
        )
    return importlib.import_module("openai")


def connect(sdk: Any, base_url: str, key: str, *, timeout_seconds: float) -> Any:
    """A client for an address. What may work the next time (429, 5xx, a broken connection) is tried again by the package."""
    options: dict[str, Any] = {}
    if checked_host(base_url) in _LOOPBACK:
        # A proxy that the environment names is for the world outside, not for this machine.
        options["http_client"] = sdk.DefaultHttpxClient(trust_env=False)
    return sdk.OpenAI(base_url=base_url, api_key=key, max_retries=_RETRIES, timeout=timeout_seconds, **options)


def openai_key(file: Path | None) -> str:
    """The key from a file, or from the environment. No message shows it.

    Raises:
        InvalidInput: there is none, or it cannot be one.
    """
    where = KEY_VARIABLE if file is None else "--openai-key-file"
    try:
        key = os.environ.get(KEY_VARIABLE, "") if file is None else _first_bytes(file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidInput(f"cannot be read: {reason}", where=where, mend="name a file that holds the key") from None
    key = key.strip()
    if not key:
        raise InvalidInput(
            "there is no key for OpenAI", where=where, mend=f"set {KEY_VARIABLE}, or name a file with --openai-key-file"
        )
    if not all("!" <= character <= "~" for character in key):
        raise InvalidInput("has a character that no key has", where=where, mend="put the key there and nothing else")
    return key


def checked_host(url: str) -> str:
    """The host of an address that can be used. Raises InvalidInput."""
    host = None
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.port != 0:
            host = parts.hostname
    if not host:
        raise InvalidInput(f"{url!r} is not an address", where="--openai-base-url", mend=f"write it like {OPENAI_URL}")
    return host


@contextmanager
def explained(sdk: Any, service: str) -> Iterator[None]:
    """Raises what the package raises as an error of ours; ``service`` says who was asked."""
    try:
        yield
    except sdk.NotFoundError as error:
        raise NotFound(f"{service} does not know it: {_words(error)}") from error
    except (sdk.AuthenticationError, sdk.PermissionDeniedError) as error:
        raise Unauthenticated(
            f"{service} refuses the key: {_words(error)}", mend="use a key of the account that may do this"
        ) from error
    except sdk.RateLimitError as error:
        raise Busy(f"{service} is asked too often, or its limit is reached: {_words(error)}") from error
    except sdk.APIConnectionError as error:
        reason = error.__cause__ or error
        raise Unavailable(f"{service} cannot be reached: {_words(reason)}", mend="check the address") from error
    except sdk.InternalServerError as error:
        raise Unavailable(f"{service} failed: {_words(error)}", mend="try again later") from error
    except sdk.OpenAIError as error:
        raise TunesmithError(f"{service} refused: {_words(error)}") from error


def _first_bytes(file: Path) -> str:
    with file.open("rb") as content:
        return content.read(_LONGEST_KEY).decode()


def _words(error: BaseException) -> str:
    """What the other side said, in one line; where it said nothing, the kind of the error."""
    said = " ".join((str(getattr(error, "message", "")) or str(error)).split())
    return (said or type(error).__name__)[:_LONGEST_MESSAGE]
