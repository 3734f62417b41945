"""The pure parts: what is wanted, when a try is followed by another, and what a signature is."""

from __future__ import annotations

import base64
import stat
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.callbacks import STANDARD_SCHEDULE, Occurrence, Signer, shown_url, sign, which
from tunesmith.callbacks.schedule import after_try
from tunesmith.errors import StateFolderUnusable
from tunesmith.records import Callback, CallbackEvent, DeliveryState

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
METRICS = CallbackEvent.METRICS


def callback(**options) -> Callback:
    return Callback(url="http://hooks.example/", **options)


def sent_at(wanted: Callback, places: list[float], *, by: str = "step") -> list[float]:
    """At which of the places metrics are sent, the last of them being the last."""
    sent, previous = [], None
    for place in places:
        occurrence = Occurrence(kind=METRICS, last=place == places[-1], **{by: place, f"previous_{by}": previous})
        if which(wanted, occurrence):
            sent.append(place)
        previous = place
    return sent


def test_only_the_events_that_were_asked_for():
    """By default all of them."""
    only = callback(events=(CallbackEvent.FINAL,))
    assert [kind for kind in CallbackEvent if which(only, Occurrence(kind=kind, last=True))] == [CallbackEvent.FINAL]
    assert all(which(callback(), Occurrence(kind=kind, last=True)) for kind in CallbackEvent)


def test_five_epochs_at_frequency_two_are_told_at_2_4_and_5():
    """Whole epochs, and the last one whatever it is."""
    assert sent_at(callback(every_epochs=2), [1, 2, 3, 4, 5], by="epoch") == [2, 4, 5]


def test_steps_are_told_every_n_and_the_last():
    """Metrics that pass a multiple without meeting it count for it, once."""
    assert sent_at(callback(every_steps=10), list(range(1, 26))) == [10, 20, 25]
    assert sent_at(callback(every_steps=50), list(range(20, 161, 20))) == [60, 100, 160]


def test_with_neither_it_is_once_an_epoch():
    """Measured often, told seldom; a hair below the whole number is the whole number."""
    assert sent_at(callback(), [0.5, 0.99999999, 1.5, 2.0, 2.25], by="epoch") == [0.99999999, 2.0, 2.25]


@given(every=st.integers(1, 50), places=st.lists(st.integers(1, 500), min_size=1, unique=True).map(sorted))
def test_each_multiple_is_told_at_most_once(every, places):
    """However the measurements fall, there are no more of them than multiples passed, and the last."""
    sent = sent_at(callback(every_steps=every), places)
    assert sent[-1] == places[-1]
    assert len(sent) <= places[-1] // every + 1


def test_the_schedule_is_the_one_of_the_standard():
    """Ten tries in 75 hours, 35 minutes and 5 seconds."""
    assert len(STANDARD_SCHEDULE) == 10
    assert timedelta(seconds=sum(STANDARD_SCHEDULE)) == timedelta(hours=75, minutes=35, seconds=5)
    for failures, wait in enumerate(STANDARD_SCHEDULE[1:], 1):
        step = after_try(500, failures=failures, now=NOW)
        assert step.state is DeliveryState.PENDING
        assert step.next_at is not None
        assert 0.95 * wait <= (step.next_at - NOW).total_seconds() <= 1.05 * wait
    assert after_try(500, failures=10, now=NOW).state is DeliveryState.FAILED


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (200, "delivered"),
        (204, "delivered"),
        (299, "delivered"),
        (410, "gone"),
        *[(status, "pending") for status in (100, 301, 302, 304, 400, 401, 404, 429, 500, 502, 503, 504, 999, None)],
    ],
)
def test_what_a_status_means(status, state):
    """2xx is success, 410 is the end, all else is tried again."""
    assert after_try(status, failures=1, now=NOW).state == state


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_in_both_forms(status):
    """Seconds or a date; it may only make the wait longer, and by a day at most."""

    def wait(retry_after: str) -> float:
        step = after_try(status, retry_after=retry_after, failures=1, now=NOW)
        assert step.next_at is not None
        return (step.next_at - NOW).total_seconds()

    assert wait("3600") == 3600
    assert wait(format_datetime(NOW + timedelta(hours=2), usegmt=True)) == 7200
    assert wait("Fri, 20 Nov 2026 15:00:00 -0000") == 3 * 3600
    for nothing in ("0", "1", "-5", "soon", "", "٣", "Thu, 01 Jan 1970 00:00:00 GMT", "1e9", "99 Foo"):
        assert 4.7 < wait(nothing) < 5.3
    for too_long in ("999999999", "9" * 5000, "Fri, 20 Nov 2099 15:00:00 GMT"):
        assert wait(too_long) == 24 * 3600


def test_only_429_and_503_are_asked_how_long():
    """A Retry-After on another status is not a promise."""
    step = after_try(500, retry_after="3600", failures=1, now=NOW)
    assert step.next_at is not None
    assert step.next_at - NOW < timedelta(seconds=6)


def test_the_secret_is_made_once_and_is_its_owners_alone(tmp_path):
    """0600, 256 random bits, and the same after a restart."""
    path = tmp_path / "webhook_secret"
    secret = Signer(path).secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert Signer(path).secret == secret


@pytest.mark.parametrize("content", [b"", b"whsec_", b"whsec_AAAA", b"whsec_not base64!", b"secret", b"\xff\xfe"])
def test_a_file_with_anything_else_is_refused_and_left_alone(tmp_path, content):
    """It says which file, and does not show what is in it."""
    path = tmp_path / "webhook_secret"
    path.write_bytes(content)
    with pytest.raises(StateFolderUnusable, match="webhook_secret") as caught:
        _ = Signer(path).secret
    assert "base64!" not in str(caught.value)
    assert path.read_bytes() == content


def test_the_signature_of_the_standards_example():
    """A value computed by others: the test vector that the Standard Webhooks libraries share."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com/hook", "https://example.com/hook"),
        ("https://me:secret@example.com:8443/hook", "https://***@example.com:8443/hook"),
        ("https://example.com/hook?token=secret&b=&secret#secret", "https://example.com/hook?token=***&b=***&***"),
        ("http://[::1]:80/hook?a=1=secret", "http://[::1]:80/hook?a=***"),
        ("http://[secret", "***"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url, shown):
    """User, password, values of the query and the fragment are for the receiver only."""
    assert shown_url(url) == shown
