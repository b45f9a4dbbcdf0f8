"""Whose place a model takes that nobody serves, where everybody is busy. Pure.

In: a draft, a model that waits, what others are expected to need. Out: replicas that drain, and a
room that is promised. Never: drains who matters more, has only just come, or is its model's
minimum; ends a running request: who drains finishes what runs.

The place whose replicas will be missed least is cleared, once those who wait have waited as much
as its loss will cost the others; and in any case after `PATIENCE_S`, so that nobody waits for
ever.
"""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from placement.plan import Reason, ReasonCode
from placement.planning.climbs import need_on
from placement.planning.draft import sets_for
from placement.planning.expected import Expected
from placement.planning.ranks import CROWD_S
from placement.planning.victims import to_drain
from placement.planning.writing import Planning
from placement.snapshot import ReplicaState

Place: TypeAlias = tuple[float, str, tuple[int, ...], tuple[ReplicaState, ...]]
PATIENCE_S_MIN = 2.0
"""So long a place may fall free by itself."""
PATIENCE_S = 20.0
"""Held this long, a request may cost busy neighbours their place, whatever they lose."""


def clear_place(planning: Planning, model: Expected, models: Mapping[str, Expected]) -> None:
    """Drain whoever stands in the way of the cheapest place, if that is worth it."""
    draft, spec = planning.draft, model.spec
    if spec.id in draft.cleared_for.values():
        return
    if model.waited_s < PATIENCE_S_MIN:
        return
    options = list(_places(planning, model, models))
    if not options:
        return
    loss, node_id, gpus, busy = min(options, key=lambda o: o[:3])
    gain = model.waited(model.waited_s)
    if gain < loss and model.waited_s < PATIENCE_S:
        return
    planning.promise(spec, node_id, gpus, spec.deadline_us)
    numbers = {"gain": gain, "loss": loss, "waited_s": model.waited_s}
    why = Reason(code=ReasonCode.MAKE_ROOM, numbers=numbers, for_model=spec.id)
    for replica in busy:
        planning.drain(replica, why)


def _places(planning: Planning, model: Expected, models: Mapping[str, Expected]) -> Iterator[Place]:
    """GPU sets that would be free once those who are busy there have gone, and their loss."""
    draft, spec = planning.draft, model.spec
    for node in draft.nodes.values():
        for gpus in sets_for(spec, draft.spec_of(node)):
            in_the_way = not node.starting_gpus.isdisjoint(gpus)
            if in_the_way or draft.promised_to_another(spec, node.node_id, gpus):
                continue
            busy = to_drain(draft, spec, node, gpus, need_on(spec, node, gpus))
            if busy:
                loss = sum(_missed(planning, models, r) for r in busy)
                yield loss, node.node_id, gpus, busy


def _missed(planning: Planning, models: Mapping[str, Expected], replica: ReplicaState) -> float:
    """Waiting that its absence will cost, at its price: until it could be back."""
    model = models.get(replica.model_id)
    if model is None:
        return 0.0
    return model.missed(len(planning.draft.serving_of(replica.model_id)), CROWD_S)
