"""How many instances a model should have more, or less (4.7). Pure.

In: mean load over five seconds, instances. Out: counts, and who is drained. Never: knows GPUs.
"""

from collections.abc import Iterable
from math import ceil

from loadtests.baselines.warmserve.flags import BATCH, US
from loadtests.baselines.warmserve.instances import Instance

OUT_SHARE = 0.8
IN_SHARE = 0.5
PROTECTED_US = 5 * US
"""An instance younger than this is not drained."""


def more_wanted(load: float, instances: int) -> int:
    """Instances to create: beyond four fifths of their slots."""
    full = OUT_SHARE * BATCH
    return ceil(load / full) - instances if load > full * instances else 0


def fewer_wanted(load: float, instances: int) -> int:
    """Instances to drain, down to none: below half of their slots."""
    low = IN_SHARE * BATCH
    return instances - ceil(load / low) if load < low * instances else 0


def to_drain(instances: Iterable[Instance], count: int, now_us: int) -> list[Instance]:
    """Those with the fewest requests first, of one number the oldest; none in its first seconds.

    One that is not up yet cannot be drained: no agent would take it.
    """
    grown = [i for i in instances if i.ready and now_us - i.created_us > PROTECTED_US]
    return sorted(grown, key=lambda i: (i.in_flight, i.created_us, i.replica_id))[:count]
