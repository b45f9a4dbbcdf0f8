"""Brains for tests that follow a script: these actions, at these moments, whatever happens."""

from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from placement.catalog import ModelId, NodeId, ReplicaId
from placement.plan import (
    Action,
    Outcome,
    Plan,
    Reason,
    ReasonCode,
    Refused,
    ReplicaAction,
    Start,
)
from placement.snapshot import ClusterSnapshot
from prewarm.controller import Answered, Ended, Event, Observed

Deed = TypeVar("Deed", bound=ReplicaAction)
Line = tuple[float, Action | Callable[[ClusterSnapshot], Action]]
"""When, in seconds, and what; a function is asked then."""
US = 1_000_000
_IDS = count(1)


def base(node_id: str = "n0", **changes: Any) -> dict[str, Any]:
    """What every action has. Ids are fresh within a process."""
    found: dict[str, Any] = {
        "action_id": f"a{next(_IDS)}",
        "snapshot_version": 0,
        "deadline_us": 3600 * US,
        "node_id": NodeId(node_id),
        "why": Reason(code=ReasonCode.OPERATOR),
    }
    return {**found, **changes}


def start(replica_id: str, model_id: str, *gpus: int, **changes: Any) -> Start:
    return Start(
        replica_id=ReplicaId(replica_id),
        model_id=ModelId(model_id),
        gpu_ids=gpus or (0,),
        **base(**changes),
    )


def on(kind: type[Deed], replica_id: str, **changes: Any) -> Deed:
    """An action on a replica that is there."""
    return kind(replica_id=ReplicaId(replica_id), **base(**changes))


class Script:
    """Plans what is written for the first round after each moment; remembers what it hears."""

    def __init__(self, *lines: Line, eta_s: float = 1) -> None:
        self.outcomes: list[Outcome] = []
        self.refused: list[Refused] = []
        self.seen: list[ClusterSnapshot] = []
        self._lines = sorted(lines, key=lambda line: line[0])
        self._eta_us = int(eta_s * US)

    def eta_us(self, model_id: str, now_us: int) -> int | None:  # noqa: ARG002
        return self._eta_us

    def step(self, event: Event) -> Plan | None:
        match event:
            case Observed(at_us=at_us, snapshot=snapshot):
                self.seen.append(snapshot)
                actions = []
                while self._lines and self._lines[0][0] * US <= at_us:
                    line = self._lines.pop(0)[1]
                    actions.append(line(snapshot) if callable(line) else line)
                return Plan(actions=tuple(actions))
            case Ended(outcome=outcome):
                self.outcomes.append(outcome)
            case Answered(refused=refused):
                self.refused.append(refused)
            case _:
                raise AssertionError(f"a simulation has no {event}")
        return None

    def span_us(self, replica_id: str, verb: str) -> tuple[int, int]:
        """When the one action of this verb on a replica began and ended."""
        found = [o for o in self.outcomes if (o.replica_id, o.verb) == (replica_id, verb)]
        assert len(found) == 1, f"{len(found)} outcomes of {verb} {replica_id}"
        return found[0].began_us, found[0].ended_us

    def took_us(self, replica_id: str, verb: str) -> int:
        began_us, ended_us = self.span_us(replica_id, verb)
        return ended_us - began_us
