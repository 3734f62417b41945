"""For how long the same request means the job that it made before."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tunesmith.openai.job_repeats import is_meant


@pytest.mark.parametrize(
    ("is_over", "is_sent_again", "seconds"),
    [(False, False, 10), (False, True, 900), (True, False, 0), (True, True, 120)],
)
def test_a_repeat_means_the_earlier_job_for_a_time(is_over, is_sent_again, seconds):
    """Longer where the client says that it sends its request again; one that is over counts for nobody else."""
    for age in (0.0, 9.9, 10.0, 119.9, 120.0, 899.9, 900.0):
        meant = is_meant(is_over=is_over, age=timedelta(seconds=age), is_sent_again=is_sent_again)
        assert meant == (age < seconds), age
