"""What holds for every property test: no clock and no luck decides about it.

How long an example takes depends on the machine, and which examples are drawn on nothing but the test: whoever changes
something else must not be the one who meets a rare one. `--hypothesis-profile default` searches at random instead.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "steady", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")
