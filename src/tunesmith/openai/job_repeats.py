"""Which job a request means that comes again: clients send it again when its answer was lost, and send no key. Pure."""

from __future__ import annotations

from datetime import timedelta

_UNFINISHED = timedelta(seconds=10)
_UNFINISHED_SENT_AGAIN = timedelta(minutes=15)
_OVER_SENT_AGAIN = timedelta(minutes=2)
"""A job may be over before the client has sent its request again. Whoever wants it once more after that gets another."""


def is_meant(*, is_over: bool, age: timedelta, is_sent_again: bool) -> bool:
    """Whether the job that the same request made so long ago is what it asks for, and not another one.

    ``is_sent_again``: the client says that it has sent this request before.
    """
    if is_over:
        return is_sent_again and age < _OVER_SENT_AGAIN
    return age < (_UNFINISHED_SENT_AGAIN if is_sent_again else _UNFINISHED)
