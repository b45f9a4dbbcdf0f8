"""How many requests of a model wait: here, and inside its engines as far as they say. Pure.

In: the count of held requests, each engine's readings. Out: `QueueDepth`. Never: takes an engine
that does not say for one in which nobody waits.
"""

from collections.abc import Mapping

from placement.catalog import Frozen
from placement.engines.readings import Meaning, Reading, Readings, State, merged

STALE_AFTER = 3
"""So many periods without an answer, and a reading is an old one."""


class QueueDepth(Frozen, frozen=True, kw_only=True):
    """Held here, and what waits in the engines with how far that can be believed."""

    held: int
    engines: Reading

    @property
    def total(self) -> float:
        return self.held + (self.engines.value or 0.0)


def queue_depth(held: int, lanes: Mapping[str, Readings], now_us: int, fresh_us: int) -> QueueDepth:
    """A model without engines has nobody waiting in one: that is known, not missing."""
    if not lanes:
        return QueueDepth(held=held, engines=Reading(value=0.0, state=State.FRESH))
    waiting = [r.read(Meaning.WAITING, now_us, fresh_us) for r in lanes.values()]
    return QueueDepth(held=held, engines=merged(waiting))
