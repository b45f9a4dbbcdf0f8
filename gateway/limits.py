"""How many files and sockets this process may have open. An edge.

In: nothing. Out: the soft limit raised towards the hard one, and a warning where that is low.
Never: lowers a limit, asks for more than the system grants.
"""

import contextlib
import logging
import resource

log = logging.getLogger("warmtide.gateway")

SOCKETS_MAX = 65_536
SOCKETS_LOW = 8192
"""Fewer, and a busy gateway would soon have to turn clients away."""


def allow_many_sockets() -> None:
    """A connection is a socket, and a login shell grants 1024; the hard limit is mostly far above,
    and told where it is not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = grantable(hard)
    if soft != resource.RLIM_INFINITY and soft < ceiling:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
    if ceiling < SOCKETS_LOW:
        log.warning(
            "at most %d open files are allowed here, and each connection to a client or an engine "
            "is one: raise the hard limit (`ulimit -Hn`, or LimitNOFILE= of a systemd unit)",
            ceiling,
        )


def grantable(hard: int) -> int:
    """What `allow_many_sockets` reaches under a hard limit."""
    return SOCKETS_MAX if hard == resource.RLIM_INFINITY else min(hard, SOCKETS_MAX)
