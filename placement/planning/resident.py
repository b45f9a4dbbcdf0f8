"""What a residency plan says: which engines are to exist, where, and in which order. Pure.

In: `residency.plan_residency` fills it. Out: what the rung plan works towards in idle time.
Never: decides.
"""

from placement.catalog import Frozen, ModelId, NodeId
from placement.plan import Reason, Want
from placement.snapshot import Rung


class Resident(Frozen, frozen=True, kw_only=True):
    """An engine that is to exist: a model on exactly these GPUs."""

    model_id: ModelId
    node_id: NodeId
    gpu_ids: tuple[int, ...]
    why: Reason
    """With the value that it adds beside those before it, in request-seconds of waiting saved."""
    rests: Rung = Rung.PARKED
    """On which it waits: shed where its weights have no room on the host."""
    start_by_us: int = 0
    """It is of use from then on: earlier starts come first."""


class Residency(Frozen, frozen=True, kw_only=True):
    """The plan. Residents in order of what they add; an engine that is in none of them may end."""

    made_us: int
    residents: tuple[Resident, ...] = ()
    value: float = 0.0
    """Request-seconds of waiting that it saves over its horizon, in the mean of the paths and
    weighted by priority, less what its starts take of idle GPUs at the operator's price."""
    bound: float = 0.0
    """No plan within the same budgets is worth more than this."""
    wants: tuple[Want, ...] = ()
    """Engines that would have been of use and have no room, and why."""
