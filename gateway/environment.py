"""The environment, read in one place. An edge.

In: names of variables. Out: secrets, the user's folder for state. Never: keeps what it read.
"""

import os
from pathlib import Path


def secret_of(name: str) -> str:
    """A secret by the name of its variable; empty where it is unset."""
    return os.environ.get(name, "")  # noqa: TID251 -- the one reader


def state_home() -> Path:
    """Where programs keep their state, by the XDG rules."""
    given = os.environ.get("XDG_STATE_HOME")  # noqa: TID251 -- the one reader
    return Path(given) if given else Path.home() / ".local" / "state"
