"""The partition made once: who gets GPUs of its own, who shares, who has no place."""

from hypothesis import given
from hypothesis import strategies as st

from loadtests.baselines.registry import static
from loadtests.baselines.static import Partition, Static, Usage, least_bytes, partition
from loadtests.simulator.port import Ending, Setup
from loadtests.simulator.world import simulate
from placement.catalog import Catalog, World
from placement.edges import footprint_bytes
from placement.feasibility import usable_hbm_bytes
from tests.baselines.small import HandMade, nodes, poisson, served, small_setup
from tests.builders import GB, catalog


def made(world: World, gpus: int, **usage: float) -> tuple[Catalog, Partition]:
    """Models of one GPU each, with this mean concurrency."""
    models = tuple(served(m, world) for m in usage)
    cluster = catalog(*models, nodes=nodes(1, gpus))
    return cluster, partition(cluster, {m: Usage(c, 300) for m, c in usage.items()})


def places(found: Partition) -> dict[str, list[tuple[int, ...]]]:
    by_model: dict[str, list[tuple[int, ...]]] = {}
    for place in found.places:
        by_model.setdefault(place.model_id, []).append(place.gpu_ids)
    return by_model


def test_everybody_gets_gpus_and_the_busiest_get_what_is_left() -> None:
    for world in World:
        cluster, found = made(world, 4, a=40.0, b=10.0)
        # a: 40 on one replica is more than 10; then 20 is; then 13.3 is.
        assert places(found) == {"a": [(0,), (2,), (3,)], "b": [(1,)]}
        assert found.catalog is cluster


def test_world_w_leaves_the_least_asked_for_without_a_place() -> None:
    _, found = made(World.W, 2, a=1.0, b=3.0, c=2.0)
    assert places(found) == {"b": [(0,)], "c": [(1,)]}


def test_without_a_place_requests_are_refused_at_once() -> None:
    models = ("a", "b")
    rows = poisson(1, "x", {"a": 0.5, "b": 0.5}, 60)
    demand = HandMade(models, rows, [poisson(1, "y", {"a": 1.0, "b": 0.2}, 60)], 60_000_000)
    specs = tuple(served(m, World.W) for m in models)
    setup = Setup(
        scenario="tight",
        world=World.W,
        seed=1,
        catalog=catalog(*specs, nodes=nodes(1, 1)),
        demand=demand,
    )
    run = simulate(setup, static(setup), checked=True)
    endings = {(models[m], Ending(e)) for m, e in zip(run.model, run.ending, strict=True)}
    assert endings == {("a", Ending.ANSWERED), ("b", Ending.REFUSED)}


def test_world_s_shares_gpus_with_smaller_caches_and_fewer_slots() -> None:
    cluster, found = made(World.S, 1, a=3.0, b=1.0)
    assert places(found) == {"a": [(0,)], "b": [(0,)]}
    a, b = found.catalog.models
    # 72 GB usable. Each: 16 weights, 1 residue, 1.5 activations, 8192 tokens of 128 KiB at least.
    floor = 18_500_000_000 + 8192 * 131_072
    left = 72 * GB - 2 * floor
    assert least_bytes(cluster.models[0]) == floor
    assert a.kv_cache_bytes == 8192 * 131_072 + left * 3 // 4
    assert b.kv_cache_bytes == 8192 * 131_072 + left // 4
    # Slots: as many requests of 300 tokens as b's cache holds, at most the model's own 32.
    assert a.max_num_seqs == 32
    assert b.max_num_seqs == min(b.kv_cache_bytes // 131_072 // 300, 32)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.floats(0, 200)), min_size=1, max_size=14),
    st.sampled_from(list(World)),
)
def test_whatever_the_demand_a_partition_fits_its_gpus(
    wanted: list[tuple[int, float]], world: World
) -> None:
    specs = tuple(served(f"m{i}", world, gpus=n) for i, (n, _) in enumerate(wanted))
    cluster = catalog(*specs, nodes=nodes(2, 4))
    found = partition(
        cluster, {s.id: Usage(c, 500) for s, (_, c) in zip(specs, wanted, strict=True)}
    )
    sizes: dict[str, int] = {m.id: footprint_bytes(m) for m in found.catalog.models}
    held: dict[tuple[str, int], int] = {}
    for place in found.places:
        for g in place.gpu_ids:
            held[place.node_id, g] = held.get((place.node_id, g), 0) + sizes[place.model_id]
    assert all(total <= usable_hbm_bytes(80 * GB) for total in held.values())
    if world is World.W:
        used = [(p.node_id, g) for p in found.places for g in p.gpu_ids]
        assert len(used) == len(set(used))


def test_an_engine_that_is_lost_is_started_again_where_it_was() -> None:
    setup = small_setup(World.S, seconds=30)
    policy = static(setup)
    assert isinstance(policy.brain, Static)
    assert policy.brain.eta_us("nobody", 0) is None
