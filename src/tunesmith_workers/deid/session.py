"""Puts something else in place of findings, and remembers what: one original, one replacement, for as long as it lives.

What a replacement looks like follows from the seed, the policy's salt and the original alone; only where two originals
would get the same one does it matter which came first.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import re
import secrets

from tunesmith_workers.deid.folding import fold
from tunesmith_workers.deid.names import Part, share_a_piece
from tunesmith_workers.deid.policy import Policy, Treatment
from tunesmith_workers.deid.surrogates import Surrogates

_MOST_TRIES = 200
_MOBILE = re.compile(r"(?:0086|86)(1[3-9]\d{9})")


class Session:
    """The memory of one request or one dataset."""

    def __init__(self, policy: Policy, surrogates: Surrogates, seed: int | None) -> None:
        self._policy = policy
        self._key = _key(policy.salt, seed)
        self._surrogates = surrogates
        self._given: dict[tuple[str, str], str] = {}
        self._taken: dict[tuple[str, str], str] = {}
        """What each replacement stands for."""

    def treat_part(self, part: Part) -> str | None:
        """The same part of what stands in place of the full name; None where nothing is made up that has parts."""
        if self._policy.kinds["PERSON"].action != "replace":
            return None
        return part.of(self.treat("PERSON", part.full))

    def treat(self, kind: str, original: str) -> str:
        """What stands in place of ``original`` from now on."""
        known = self._given.get((kind, original))
        if known is None:
            known = self._treat(self._policy.kinds[kind], kind, original)
            self._given[kind, original] = known
        return known

    def _treat(self, treatment: Treatment, kind: str, original: str) -> str:
        if treatment.action == "redact":
            return f"<{kind}>"
        if treatment.action == "mask":
            return _masked(original, kind, treatment)
        meant = _meant(original)
        if kind == "PHONE" and (mobile := _MOBILE.fullmatch(meant)):
            meant = mobile[1]  # +86 138 0013 8000 is that number too
        if treatment.action == "hash":
            return f"<{kind}:{self._digest(kind, meant, 0).hex()[: treatment.length]}>"
        return self._replacement(kind, original, meant)

    def _replacement(self, kind: str, original: str, meant: str) -> str:
        for attempt in range(_MOST_TRIES):
            made = self._surrogates.make(kind, original, random.Random(self._digest(kind, meant, attempt)))
            stands_for = self._taken.get((kind, _meant(made)))
            if kind == "PERSON" and share_a_piece(original, made):
                continue
            if _meant(made) != meant and stands_for in (None, meant):
                self._taken[kind, _meant(made)] = meant
                return made
        # So many originals of one shape that nothing of that shape is left, such as surnames alone.
        return f"<{kind}:{self._digest(kind, meant, 0).hex()[:12]}>"

    def _digest(self, kind: str, meant: str, attempt: int) -> bytes:
        message = f"{kind}\0{meant}\0{attempt}".encode(errors="surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).digest()


def _key(salt: str, seed: int | None) -> bytes:
    if seed is None and not salt:
        return secrets.token_bytes(32)
    return hashlib.sha256(f"{salt}\0{seed}".encode(errors="surrogatepass")).digest()


def _meant(original: str) -> str:
    """The original without the ways to write it: 138 0013 8000 and 13800138000 are the same number."""
    kept = "".join(character for character in fold(original).casefold() if character.isalnum())
    return kept or original


def _masked(original: str, kind: str, treatment: Treatment) -> str:
    """Letters and digits starred out, apart from some at the ends; of an e-mail address only what is before the @."""
    at = original.find("@") if kind == "EMAIL" else -1
    body, rest = (original[:at], original[at:]) if at > 0 else (original, "")
    places = [index for index, character in enumerate(body) if character.isalnum()]
    first, last = treatment.first, treatment.last
    if first + last >= len(places):
        # Too short to keep that much: at least half is starred out.
        first = min(first, len(places) // 2)
        last = min(last, len(places) // 2 - first)
    hidden = set(places[first : len(places) - last])
    return "".join(treatment.character if index in hidden else one for index, one in enumerate(body)) + rest
