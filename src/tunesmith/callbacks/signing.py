"""Signatures as the Standard Webhooks text defines them (https://www.standardwebhooks.com): HMAC-SHA256, ``v1``.

One secret for the whole service, in a file that only its owner can read. Nothing here logs or prints it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import threading
from pathlib import Path

from tunesmith.errors import StateFolderUnusable
from tunesmith.files import write_atomically

_PREFIX = "whsec_"
_BYTES = 32
_FEWEST_BYTES = 24


class Signer:
    """Makes the headers of a delivery. The secret is made when first needed. Reading and making it blocks shortly."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._secret: str | None = None
        self._lock = threading.Lock()

    def load(self) -> None:
        """Read the secret, if there is one, so that a spoilt file is noticed at the start. Raises as ``secret`` does."""
        with self._lock:
            self._secret = self._secret or _read(self._path)

    @property
    def secret(self) -> str:
        """``whsec_...``: whoever knows it can forge deliveries.

        Raises:
            StateFolderUnusable: the file holds something else.
            OSError: it cannot be read or written.
        """
        with self._lock:
            if self._secret is None:
                self._secret = _read(self._path) or _make(self._path)
            return self._secret

    def headers(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """What goes with ``body``; ``timestamp`` is unix seconds of this very try."""
        return {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self.secret, message_id, timestamp, body),
        }


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.digest(_key(secret), content, 'sha256')).decode()}"


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)


def _read(path: Path) -> str | None:
    try:
        secret = path.read_text(encoding="ascii").strip()
        usable = secret.startswith(_PREFIX) and len(_key(secret)) >= _FEWEST_BYTES
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, binascii.Error):
        usable = False
    if not usable:
        raise StateFolderUnusable(
            f"this is not a secret of the form {_PREFIX}<base64 of at least {_FEWEST_BYTES} bytes>",
            where=str(path),
            mend="delete the file and restart: a new secret is made, and receivers must be given it",
        )
    return secret


def _make(path: Path) -> str:
    secret = _PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()
    write_atomically(path, f"{secret}\n".encode(), mode=0o600)
    return secret
