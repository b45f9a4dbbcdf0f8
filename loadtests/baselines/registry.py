"""The policies that come with Warmtide, by name. Pure.

In: nothing. Out: `POLICIES` run in a simulated cluster, `RELAXATIONS` are worked out from the
demand alone. Never: looks for others (`plugins` does).
"""

from collections.abc import Callable

from loadtests.baselines.keepalive import KeepAlive
from loadtests.baselines.oracle import oracle
from loadtests.baselines.ours import OURS
from loadtests.baselines.scalers import QueueScaler
from loadtests.baselines.static import Static, Usage, partition
from loadtests.baselines.warmserve import flags
from loadtests.baselines.warmserve.policy import warmserve
from loadtests.baselines.warmserve.seasonal import usage_of
from loadtests.simulator.port import Policy, PolicyFactory, Run, Setup
from prewarm.controller import Controller

Relaxation = Callable[[Setup], Run]
"""Not a policy: an answer to what no policy could beat, without a cluster to run it in."""


def reactive(setup: Setup) -> Policy:
    """Our controller as it is: climbs on demand from host memory, with nothing forecast."""
    return Policy(brain=Controller(setup.catalog, "reactive"))


def keepalive_lru(setup: Setup) -> Policy:
    return Policy(brain=Controller(setup.catalog, "keepalive", KeepAlive().decide))


def queue_scaler(setup: Setup) -> Policy:
    return Policy(brain=Controller(setup.catalog, "queue", QueueScaler().decide))


def static(setup: Setup) -> Policy:
    usage = {m: Usage(mean, tokens) for m, (mean, tokens) in usage_of(setup).items()}
    made = partition(setup.catalog, usage)
    return Policy(brain=Static(made), catalog=made.catalog)


POLICIES: dict[str, PolicyFactory] = {
    "reactive": reactive,
    "static": static,
    "keepalive-lru": keepalive_lru,
    "queue-scaler": queue_scaler,
    "warmserve": warmserve(flags.AS_RELEASED),
    "warmserve-noprewarm": warmserve(flags.NO_PREWARM),
    "warmserve-noplacement": warmserve(flags.NO_PLACEMENT),
    "warmserve-noproactive": warmserve(flags.NO_PROACTIVE),
    "warmserve-norelease": warmserve(flags.NO_RELEASE),
    "warmserve-nolazy": warmserve(flags.NO_LAZY_KV),
    "warmserve-nounified": warmserve(flags.NO_UNIFIED_MEMORY),
    "warmserve-3min": warmserve(flags.SHORT_WINDOWS),
    "warmserve-40min": warmserve(flags.LONG_WINDOWS),
    "warmserve+gateway": warmserve(flags.WITH_GATEWAY),
    "warmserve-fixed": warmserve(flags.FIXED),
    **OURS,
}

RELAXATIONS: dict[str, Relaxation] = {"oracle": oracle}
