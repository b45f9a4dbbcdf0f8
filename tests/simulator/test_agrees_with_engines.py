"""Simulated nodes take as long as the emulated engines that stand in for real ones."""

from loadtests.simulator.port import Policy
from loadtests.simulator.world import simulate
from placement.engines.emulated import DeedEnded, EmulatedNode, Ready, ReplicaRequest
from placement.plan import Park, Promote
from tests.builders import GB, catalog, model, node
from tests.simulator.scripts import Line, Script, on, start
from tests.simulator.worlds import asked, setup

US = 1_000_000
# Four of them wake at once: 4 x 22 GB/s are asked of a link of 44 GB/s.
MODELS = [model(f"m{i}", weights_bytes=(10 + 4 * i) * GB) for i in range(4)]
NODE = node(gpus=4)
STARTED_US, PARKED_US, WOKEN_US = 1 * US, 100 * US, 200 * US


def simulated() -> dict[tuple[str, str], int]:
    lines: list[Line] = []
    for i, spec in enumerate(MODELS):
        lines += [
            (1, start(spec.id, spec.id, i)),
            (100, on(Park, spec.id)),
            (200, on(Promote, spec.id)),
        ]
    script = Script(*lines)
    demand = asked([m.id for m in MODELS], duration_s=300)
    simulate(setup(catalog(*MODELS, nodes=(NODE,)), demand), Policy(brain=script), checked=True)
    return {(o.replica_id, o.verb): o.ended_us - o.began_us for o in script.outcomes}


def emulated() -> dict[tuple[str, str], int]:
    """The same, asked of the engines one development call after the other."""
    host, took = EmulatedNode(NODE, seed=1), {}
    for i, spec in enumerate(MODELS):
        host.start(ReplicaRequest(replica_id=spec.id, model=spec, gpu_ids=(i,)), STARTED_US)
    for event in host.advance(PARKED_US):
        assert isinstance(event, Ready)
        took[event.replica_id, "start"] = event.at_us - STARTED_US
    for spec in MODELS:
        host.pause(spec.id, "abort")
        assert host.sleep(spec.id, 1, PARKED_US) is None
    for event in host.advance(WOKEN_US):
        assert isinstance(event, DeedEnded)
        took[event.replica_id, "park"] = event.at_us - PARKED_US
    for spec in MODELS:
        assert host.wake(spec.id, (), WOKEN_US) is None
    for event in host.advance(300 * US):
        assert isinstance(event, DeedEnded)
        took[event.replica_id, "promote"] = event.at_us - WOKEN_US
    return took


def test_starts_parks_and_promotions_take_as_long_as_emulated_engines_do() -> None:
    ours, theirs = simulated(), emulated()
    assert ours.keys() == theirs.keys()
    assert len(ours) == 12
    differences = {k: ours[k] - theirs[k] for k in ours if abs(ours[k] - theirs[k]) > 2}
    assert not differences, "microseconds of rounding apart, they agree"
