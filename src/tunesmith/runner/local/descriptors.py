"""How many descriptors this process may have, and the processes that it starts: as many as possible, and as many as before.

A server needs one for each connection. What it starts keeps the limit that the operator started the server with: programs
that use ``select`` go wrong above 1024.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import NamedTuple


class ChildDescriptors(NamedTuple):
    """What processes that are started get."""

    soft: int | None

    def limited(self, command: Sequence[str]) -> list[str]:
        """A command that sets the limit and then becomes ``command``, in the same process."""
        if self.soft is None:
            return list(command)
        return ["/bin/sh", "-c", 'ulimit -S -n "$0" && exec "$@"', str(self.soft), *command]


AS_INHERITED = ChildDescriptors(None)


def raise_limit() -> ChildDescriptors:
    """Raise the soft limit of this process to its hard one; answers what its children are to have: what it had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return AS_INHERITED
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return ChildDescriptors(soft)
