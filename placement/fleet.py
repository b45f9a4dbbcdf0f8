"""The port every fleet stands behind: submit actions, hear what became of them. An edge.

Three fleets implement it: this machine (`fleets.local`), a Ray cluster, and the simulator.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from placement.catalog import Catalog, Frozen
from placement.plan import Action, Answer, Outcome
from placement.snapshot import ClusterSnapshot


class FleetError(Exception):
    """The fleet cannot be brought up; the text says which part and where to look."""


class FleetChanged(Frozen, frozen=True, kw_only=True, tag="changed"):
    """Something a plan depends on moved; `snapshot` is the newest."""

    snapshot: ClusterSnapshot


class ActionEnded(Frozen, frozen=True, kw_only=True, tag="ended"):
    """An accepted action ended. Comes after the `FleetChanged` that shows its effect."""

    outcome: Outcome


FleetEvent: TypeAlias = FleetChanged | ActionEnded


class Fleet(Protocol):
    """All methods are called from one event loop. Listeners are called on it and must not block."""

    async def start(self, listener: Callable[[FleetEvent], None]) -> None:
        """Bring agents up (or find them) and report at least one `FleetChanged`."""

    async def submit(self, action: Action) -> Answer:
        """Hand an action to its node's agent. Never raises: an unreachable node is a refusal."""

    def snapshot(self) -> ClusterSnapshot: ...

    async def reload(self, catalog: Catalog) -> None:
        """Tell every agent about changed models. Nodes cannot change while the fleet runs."""

    async def close(self, *, end_engines: bool) -> None:
        """Stop following agents; with `end_engines` end agents and engines too."""
