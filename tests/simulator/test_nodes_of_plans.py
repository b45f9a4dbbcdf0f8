"""Simulated clusters whose plans say which nodes come and go, with every law asserted."""

from collections.abc import Callable

import pytest

from loadtests.simulator.port import Elastic, Ending, Policy, Run
from loadtests.simulator.world import simulate
from placement.catalog import Mechanism, ModelId, World
from placement.planning.outlook import ModelOutlook, Outlook
from placement.planning.paths import DemandPaths
from placement.planning.rungs import plan_rungs
from prewarm.controller import Controller, Observed
from tests.builders import GB, catalog, model, node
from tests.simulator.worlds import Ask, asked, setup

US = 1_000_000
LEAD_S = 60
HORIZONS_US = (10 * US, 100 * US)
"""A launch and a start from host memory take less than the second, and more than the first."""
Gpus = Callable[[float], tuple[int, ...]]


class Foretold:
    """Foresight by hand: of each moment the GPUs that are needed, future by future."""

    def __init__(self, models: tuple[str, ...], rate_per_s: float, gpus: Gpus) -> None:
        self._models, self._rate_per_s, self._gpus = models, rate_per_s, gpus

    def see(self, seen: Observed) -> None:
        """Nothing is learnt."""

    def paths(self, now_us: int) -> DemandPaths | None:  # noqa: ARG002
        return None

    def outlook(self, now_us: int) -> Outlook:
        gpus = tuple(self._gpus((now_us + ahead_us) / US) for ahead_us in HORIZONS_US)
        return Outlook(
            made_us=now_us,
            horizons_us=HORIZONS_US,
            paths=len(gpus[0]),
            models={
                m: ModelOutlook(
                    model_id=ModelId(m), rate_per_s=self._rate_per_s, service_s=2.0, slots=32
                )
                for m in self._models
            },
            gpus=gpus,
        )


def run(world: World, gpus: Gpus, *asks: Ask, duration_s: int) -> Run:
    """Two models on nodes of two GPUs, four of them at most."""
    kv_cache = 54 * GB if world is World.W else 20 * GB
    small = [
        model(m, mechanism=Mechanism(world=world), kv_cache_bytes=kv_cache) for m in ("a", "b")
    ]
    whole = catalog(*small, nodes=tuple(node(f"n{i}") for i in range(4)))
    elastic = Elastic(lead_us=LEAD_S * US, nodes_min=1, idle_us=10 * US)
    here = setup(
        whole, asked(["a", "b"], *asks, duration_s=duration_s), elastic=elastic, world=world
    )
    brain = Controller(whole, "t", plan_rungs, Foretold(("a", "b"), len(asks) / duration_s, gpus))
    return simulate(here, Policy(brain=brain), checked=True)


def there(found: Run) -> dict[int, int]:
    """GPUs by the second, as the timeline shows them."""
    return {moment.at_us // US: moment.gpus_there for moment in found.timeline}


def steadily(until_s: int) -> list[Ask]:
    return [Ask(at, model) for at in range(5, until_s, 5) for model in ("a", "b")]


both_worlds = pytest.mark.parametrize("world", list(World))


@both_worlds
def test_a_ramp_that_is_foretold_finds_its_nodes_there_and_they_go_after_it(world: World) -> None:
    """Six GPUs are needed from minute ten to minute twenty, else two."""

    def gpus(at_s: float) -> tuple[int, ...]:
        return (6,) if 600 <= at_s < 1200 else (2,)

    found = run(world, gpus, *steadily(1800), duration_s=1800)
    by_s = there(found)
    assert by_s[490] == 2, "nothing is launched more than a launch and a climb ahead"
    assert by_s[600] == 6
    assert by_s[1100] == 6
    assert by_s[1500] == 2, "given back"
    assert all(ending == Ending.ANSWERED for ending in found.ending), "nobody lost by it"


@both_worlds
def test_steady_demand_moves_no_nodes(world: World) -> None:
    """Even where chance lets it swing around what a node is worth every ten seconds."""

    def gpus(at_s: float) -> tuple[int, ...]:
        return (2, 2, 3, 4) if int(at_s) // 10 % 2 else (1, 2, 2, 2)

    found = run(world, gpus, *steadily(3600), duration_s=3600)
    assert set(list(there(found).values())[30:]) == {4}
