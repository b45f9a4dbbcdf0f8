"""WarmServe and its ablations as policies. Pure.

In: a `Setup`. Out: a `Policy` that shares one state between brain and gateway. Never: decides.
"""

from loadtests.baselines.warmserve.brain import WarmServe
from loadtests.baselines.warmserve.catalogs import as_configured
from loadtests.baselines.warmserve.flags import Flags
from loadtests.baselines.warmserve.front import OwnGateway
from loadtests.baselines.warmserve.seasonal import usual_windows
from loadtests.simulator.port import Policy, PolicyFactory, Setup


def warmserve(flags: Flags) -> PolicyFactory:
    def make(setup: Setup) -> Policy:
        catalog = as_configured(setup.catalog, flags)
        usual = usual_windows(setup, flags.window_us) if flags.prewarm else {}
        brain = WarmServe(catalog, flags, usual)
        return Policy(
            brain=brain,
            front=(lambda stage: OwnGateway(stage, brain)) if flags.own_gateway else None,
            on_concurrency=brain.on_concurrency,
            catalog=catalog,
        )

    return make
