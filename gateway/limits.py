"""How many files and sockets this process may have open. An edge.

In: nothing. Out: the soft limit raised towards the hard one. Never: lowers a limit, asks for more
than the system grants.
"""

import contextlib
import resource

SOCKETS_MAX = 65_536


def allow_many_sockets() -> None:
    """A connection is a socket, and a login shell grants 1024; the hard limit is far above."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = grantable(hard)
    if soft != resource.RLIM_INFINITY and soft < ceiling:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))


def grantable(hard: int) -> int:
    """What `allow_many_sockets` reaches under a hard limit."""
    return SOCKETS_MAX if hard == resource.RLIM_INFINITY else min(hard, SOCKETS_MAX)
