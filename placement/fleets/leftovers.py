"""What still runs under a state directory, and its end. ✎

In: the files that agents and engines were started with. Out: processes ended, each by its pid and
start time, never by a name; agents first, so that nobody starts anew what is being ended.
"""

from collections.abc import Iterator
from pathlib import Path

from placement.engines.base import (
    IDENTITY,
    Identity,
    end_now,
    identity_of_spec,
    read_identity,
    still_there,
)

AGENT_SPEC = "agent-spec.json"
AGENT_FILE = "agent.json"


def end_leftovers(state_dir: Path) -> list[str]:
    """End every agent, engine-host and engine of this fleet. What was ended, for people."""
    ended: list[str] = []
    for folder in sorted((state_dir.absolute() / "nodes").glob("*")):
        ended += end_node(folder)
    return ended


def end_node(folder: Path) -> list[str]:
    """End all of one node and forget where it was; logs stay."""
    ended: list[str] = []
    for name, identity in found_in(folder):
        if end_now(identity):
            ended.append(f"{name} of {folder.name} (pid {identity.pid})")
    stale = [*folder.rglob(f"*{IDENTITY}"), *folder.rglob("*ready.json")]
    for path in [*stale, folder / AGENT_FILE, folder / "replicas.json"]:
        path.unlink(missing_ok=True)
    return ended


def found_in(folder: Path) -> Iterator[tuple[str, Identity]]:
    """Living processes of a node: its agent, then its engine-host, then engines of their own.

    Looked for one after the other: while an agent lives, it may be starting an engine.
    """
    for name, place, ready, spec in _places(folder):
        kind = name.split(" ", 1)[0]
        identity = read_identity(place / f"{kind}{IDENTITY}")
        if identity is None or not still_there(identity):
            identity = identity_of_spec(place / ready, place / spec)
        if identity is not None and still_there(identity):
            yield name, identity


def _places(folder: Path) -> Iterator[tuple[str, Path, str, str]]:
    yield "agent", folder, AGENT_FILE, AGENT_SPEC
    yield "engine-host", folder, "engine-host.ready.json", "engine-host.spec.json"
    for place in sorted((folder / "engines").glob("*")):
        yield f"engine {place.name}", place, "ready.json", "spec.json"
