"""The environment, read in one place. An edge.

In: names of variables. Out: secrets, the user's folders for state and cache.
Never: keeps what it read.
"""

import os
from pathlib import Path


def secret_of(name: str) -> str:
    """A secret by the name of its variable; empty where it is unset."""
    return os.environ.get(name, "")  # noqa: TID251 -- the one reader


def state_home() -> Path:
    """Where programs keep their state, by the XDG rules."""
    return _home("XDG_STATE_HOME", ".local/state")


def cache_home() -> Path:
    """Where programs keep what they could make again, by the XDG rules."""
    return _home("XDG_CACHE_HOME", ".cache")


def _home(name: str, below: str) -> Path:
    given = os.environ.get(name)  # noqa: TID251 -- the one reader
    return Path(given) if given else Path.home() / below
