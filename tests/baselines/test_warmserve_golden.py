"""WarmServe step by step: what the published formulas give, worked out by hand (docs/baselines.md).

One group a step, 4.1 to 4.8, then the ablations and the quirks of the released code.
"""

from math import exp
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.baselines.warmserve.books import Books, Doing, book_of
from loadtests.baselines.warmserve.brain import WarmServe
from loadtests.baselines.warmserve.catalogs import as_configured
from loadtests.baselines.warmserve.counts import Needed, cold_s, needed, scores
from loadtests.baselines.warmserve.flags import AS_RELEASED, FIXED, Flags
from loadtests.baselines.warmserve.forecast import Forecast, Seen, forecast
from loadtests.baselines.warmserve.front import OwnGateway
from loadtests.baselines.warmserve.instances import Instance
from loadtests.baselines.warmserve.laminar import (
    Load,
    Missing,
    Placed,
    Site,
    mask_of,
    place,
    round_robin,
)
from loadtests.baselines.warmserve.launch import choose
from loadtests.baselines.warmserve.meter import Meter
from loadtests.baselines.warmserve.prewarming import loads
from loadtests.baselines.warmserve.scaling import fewer_wanted, more_wanted, to_drain
from loadtests.baselines.warmserve.seasonal import usual_windows
from loadtests.simulator.port import Setup
from placement.catalog import Mechanism, ModelSpec, World
from placement.plan import Action, RefusalCode, Refused, Start
from placement.snapshot import ClusterSnapshot, Phase, ReplicaState, Rung
from prewarm.controller import Answered, Observed
from tests.baselines.hand import HandCluster, HandStage, finish, replica, request, told
from tests.baselines.small import HandMade, nodes, served
from tests.builders import GB, GIB, catalog, model

US = 1_000_000
PAGE = 2 * 2**20
LOADS_NOTHING = Flags(prewarm=False)
W7B = 13_476_831_232


def seen(*values: float) -> list[Seen]:
    return [Seen(v, 2 * v) for v in values]


# --- 4.1 forecast


def test_41_the_forecast_is_the_seasonal_mean_plus_errors_of_which_the_newest_weighs_most() -> None:
    # Errors, newest first: 8 - 12 = -4, 14 - 10 = 4, 10 - 9 = 1; weights 1, 1/2, 1/4.
    # (-4 + 2 + 0.25) / 1.75 = -1; the next window is usually 11: 11 - 1 = 10.
    # Peaks are all twice that: 22 - 2 = 20.
    found = forecast(seen(10, 14, 8), seen(9, 10, 12, 11))
    assert found == pytest.approx(Forecast(10.0, 20.0))


def test_41_before_anything_was_seen_the_first_window_is_as_usual() -> None:
    assert forecast([], seen(7, 3)) == Forecast(7.0, 14.0)


def test_41_ten_windows_correct_and_no_more() -> None:
    # The eleventh back was off by 1000; the ten newest were as usual.
    assert forecast(seen(1005, *[5] * 10), seen(*[5] * 12)).average == pytest.approx(5.0)
    # The tenth back counts: weight 2^-9 of a sum of 2 - 2^-9 = 1023/512; 1000 / 1023 more.
    tenth = forecast(seen(5, 1005, *[5] * 9), seen(*[5] * 12))
    assert tenth.average == pytest.approx(5 + 1000 / 1023)


def test_41_no_forecast_is_zero_and_no_peak_lies_below_its_average() -> None:
    # 4 - (20 - 4) = -12 would be a negative average; 0.01 is the published clamp's place.
    assert forecast([Seen(4, 4)], [Seen(20, 20), Seen(4, 4)]) == Forecast(0.01, 0.01)
    assert forecast([], [Seen(6.0, 2.0)]) == Forecast(6.0, 6.0)


def test_41_a_window_is_averaged_over_time_and_its_peak_taken_at_arrivals_only() -> None:
    meter = Meter()
    meter.open_window(0)
    for at_s, level in ((1, 1), (2, 2), (4, 1), (8, 0)):
        meter.change(level, at_s * US)
    # 1 for 1 s, 2 for 2 s, 1 for 4 s: 9 over 10 s.
    assert meter.close_window(10 * US) == Seen(0.9, 2.0)
    # Its peak starts from 0: one request that ran on was in no arrival's sight.
    meter.change(1, 12 * US)
    meter.close_window(20 * US)
    meter.change(0, 25 * US)
    assert meter.close_window(30 * US) == Seen(0.5, 0.0)
    # Nor does one that ends count as an arrival: 3 fall to 2.
    for level in (1, 2, 3):
        meter.change(level, 35 * US)
    meter.close_window(40 * US)
    meter.change(2, 45 * US)
    assert meter.close_window(50 * US) == Seen(2.5, 0.0)


def past_setup(days: list[list[tuple[float, str, int, int]]], rows_a_chunk: int = 100) -> Setup:
    spec = served("m", World.W)
    demand = HandMade(("m",), [], days, duration_us=20 * US, rows_a_chunk=rows_a_chunk)
    return Setup(
        scenario="past",
        world=World.W,
        seed=0,
        catalog=catalog(spec, nodes=nodes()),
        demand=demand,
    )


def test_41_past_days_are_rebuilt_with_fixed_service_times() -> None:
    # 35 ms and 131 tokens of 15 ms: each runs 2 s.
    yesterday = [(0.0, "m", 10, 131), (1.0, "m", 10, 131), (9.0, "m", 10, 131)]
    before = [(4.0, "m", 10, 131)]
    # Windows of 10 s. Yesterday: 2 + 2 + 1 s in the first, at most 2 at once; 1 s in the second, in
    # which nobody arrived. The day before: 2 s, 1 at once; nothing. Means of both days.
    first, second = usual_windows(past_setup([yesterday, before]), 10 * US)["m"]
    assert first == pytest.approx(Seen((0.5 + 0.2) / 2, 1.5))
    assert second == pytest.approx(Seen(0.05, 0.0))


def test_41_a_request_that_comes_as_another_ends_finds_it_gone_and_chunks_make_no_difference() -> (
    None
):
    # 2 s each: at 0, 2, 3 and 9 s. At most 2 at once, from 3 to 4 s; 1 s of the last in the second.
    rows = [(at, "m", 10, 131) for at in (0.0, 2.0, 3.0, 9.0)]
    for rows_a_chunk in (1, 2, 4):
        setup = past_setup([rows], rows_a_chunk)
        first, second = usual_windows(setup, 10 * US)["m"]
        assert first == pytest.approx(Seen(0.7, 2.0))
        assert second == pytest.approx(Seen(0.1, 0.0))
    # Alone, one that comes just as the other ends is the only one.
    assert usual_windows(past_setup([rows[:2]]), 10 * US)["m"][0].peak == 1.0


# --- 4.2 counts and scores


def test_42_foundation_for_the_average_and_burst_for_the_peak() -> None:
    # ceil(40/32) = 2, ceil(100/32) = 4. One instance runs: 1 foundation, 4 - 1 - 1 = 2 burst.
    assert needed(Forecast(40, 100), 1) == Needed(1, 2)
    assert needed(Forecast(40, 100), 4) == Needed(0, 0)
    assert needed(Forecast(0.01, 0.01), 0) == Needed(1, 0)


def test_42_scores_fall_along_the_joint_list_and_burst_ones_are_raised() -> None:
    spec = model(weights_bytes=64 * GIB, gpus=2)
    cold = cold_s(spec)
    assert cold == pytest.approx(1.0)  # 64 GiB over 2 GPUs at 32 GiB/s
    found = scores(Needed(1, 2), Forecast(40, 100), cold)
    # 1; e^-1/3 and e^-2/3 times 100/40: both burst replicas outrank the foundation.
    assert found == pytest.approx([1.0, 2.5 * exp(-1 / 3), 2.5 * exp(-2 / 3)])
    assert found[2] > found[0]


def test_42_the_cold_start_of_llama_2_7b_is_taken_for_four_tenths_of_a_second() -> None:
    # 13476831232 / 2^30 / 32
    assert cold_s(model(weights_bytes=W7B)) == pytest.approx(0.3922, abs=1e-4)


# --- 4.3 placement


def site(free: list[int], *placed: tuple[str, tuple[int, ...], float]) -> Site:
    listed = [Placed(m, gpus, score, mask_of(gpus)) for m, gpus, score in placed]
    return Site("n0", [f * GB for f in free], listed)


def want(model_id: str, score: float, gpus: int = 1, gb: int = 10) -> Missing:
    return Missing(model_id, gpus, score, gb * GB)


def ten_gb(_model: str, _node: str, _gpus: tuple[int, ...]) -> int:
    return 10 * GB


def placed_on(missing: list[Missing], *sites: Site) -> list[tuple[str, tuple[int, ...]]]:
    return [(x.model_id, x.gpu_ids) for x in place(missing, sites, ten_gb)]


def test_43_where_it_would_be_the_top_one_goes_before_where_it_harms_less() -> None:
    # On GPU 0 lies 0.8; on GPU 1 lie 0.5 and 0.4, which is more in sum.
    here = [("x", (0,), 0.8), ("y", (1,), 0.5), ("z", (1,), 0.4)]
    assert placed_on([want("new", 0.6)], site([20, 20], *here)) == [("new", (1,))]


def test_43_a_guest_goes_where_the_sum_of_scores_is_smallest() -> None:
    here = [("x", (0,), 0.8), ("y", (1,), 0.5), ("z", (1,), 0.4)]
    assert placed_on([want("new", 0.3)], site([20, 20], *here)) == [("new", (0,))]


def test_43_an_empty_gpu_beats_all_and_ties_go_to_the_first() -> None:
    here = [("x", (0,), 0.1)]
    assert placed_on([want("new", 0.6)], site([20, 20, 20], *here)) == [("new", (1,))]
    two = (site([9, 20]), Site("n1", [20 * GB], []))
    assert place([want("new", 1.0)], two, ten_gb) == [Load("new", "n0", (1,))]


def test_43_sets_nest_or_are_disjoint() -> None:
    pair = ("pair", (0, 1), 0.1)
    # Two GPUs: the same two, or two others; never one of each.
    assert placed_on([want("two", 1.0, gpus=2)], site([20] * 4, pair)) == [("two", (2, 3))]
    assert placed_on([want("two", 1.0, gpus=2)], site([20, 20, 20, 0], pair)) == [("two", (0, 1))]
    # Four contain the two; one lies inside them.
    assert placed_on([want("four", 1.0, gpus=4)], site([20] * 4, pair)) == [("four", (0, 1, 2, 3))]
    assert placed_on([want("one", 1.0)], site([0, 20, 0, 0], pair)) == [("one", (1,))]
    # Three that would take one of the pair alone, and no other three have room.
    assert placed_on([want("three", 1.0, gpus=3)], site([0, 20, 20, 20], pair)) == []


def test_43_a_gpu_holds_a_model_once() -> None:
    assert placed_on([want("x", 1.0)], site([20], ("x", (0,), 0.0))) == []


def test_43_the_worthiest_is_placed_first_and_room_is_deducted() -> None:
    missing = [want("small", 0.2), want("large", 0.9), want("middle", 0.5)]
    # Room for one on GPU 0, for two on GPU 1.
    found = placed_on(missing, site([10, 20]))
    # large: GPU 0, the first. middle: only GPU 1 has room. small: beside it.
    assert found == [("large", (0,)), ("middle", (1,)), ("small", (1,))]
    assert placed_on(missing, site([10])) == [("large", (0,))]


def test_43_thirty_slots_a_gpu() -> None:
    full = [(f"m{i}", (0,), 0.0) for i in range(30)]
    assert placed_on([want("new", 1.0)], site([1000], *full)) == []
    assert placed_on([want("new", 1.0)], site([1000], *full[1:])) == [("new", (0,))]


@given(
    wants=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from([1, 2, 4, 8]), st.floats(0.01, 9)),
        max_size=12,
    ),
    free=st.lists(st.integers(0, 60), min_size=8, max_size=8),
)
def test_43_whatever_is_placed_is_laminar_and_fits(
    wants: list[tuple[str, int, float]], free: list[int]
) -> None:
    here = site(free)
    chosen = place([want(m, score, gpus=n) for m, n, score in wants], [here], ten_gb)
    sets = [set(x.gpu_ids) for x in chosen]
    for i, a in enumerate(sets):
        for j, b in enumerate(sets[:i]):
            assert a <= b or b <= a or not a & b
            assert not a & b or chosen[i].model_id != chosen[j].model_id
    for g in range(8):
        assert sum(g in s for s in sets) * 10 <= free[g]


# --- books: what 4.3 to 4.8 read


def w_specs(*models: tuple[str, int]) -> dict[str, ModelSpec]:
    """Weights of 16 GB on one GPU, of 70 GB over several."""
    return {m: served(m, World.W, gpus=n) for m, n in models}


def books_of(snapshot: ClusterSnapshot, specs: dict[str, ModelSpec]) -> Books:
    return {n.node_id: book_of(n, specs) for n in snapshot.nodes}


def pages(n_bytes: int) -> int:
    return -(-n_bytes // PAGE) * PAGE


def test_free_memory_is_what_warm_weights_leave_and_none_beside_an_instance() -> None:
    specs = w_specs(("a", 1), ("b", 1), ("two", 2))
    cluster = HandCluster(gpus=4)
    snapshot = cluster.put(
        replica("a-1", "a", (0,)),
        replica("b-1", "b", (1,), Rung.SERVING),
        replica("two-1", "two", (2, 3)),
        replica("a-2", "a", (3,), phase=Phase.STARTING, action_id="x", target=Rung.WARM),
    )
    # 0.9 of 80 GB; weights per GPU in pages of 2 MiB.
    usable, w16, w35 = 72 * GB, pages(16 * GB), pages(35 * GB)
    assert books_of(snapshot, specs)["n0"].free == (
        usable - w16,
        0,
        usable - w35,
        usable - w35 - w16,
    )


# --- 4.4 the pass


def observed(snapshot: ClusterSnapshot, at_us: int = 0, **changes: Any) -> Observed:
    return Observed(at_us=at_us, snapshot=snapshot, **changes)


def policy(
    specs: dict[str, ModelSpec], usual: dict[str, list[Seen]], flags: Flags = AS_RELEASED
) -> WarmServe:
    made = catalog(*specs.values(), nodes=nodes(1))
    return WarmServe(made, flags, usual)


def test_44_memory_that_came_free_is_used_by_the_next_pass() -> None:
    specs = w_specs(("a", 1), ("b", 1))
    brain = policy(specs, {"a": [Seen(1, 1)], "b": [Seen(1, 1)]})
    cluster = HandCluster(gpus=1)
    running = replica("b-9", "b", (0,), Rung.SERVING)
    brain.see(cluster.put(running))
    assert [told(a) for a in brain.pass_at(0).actions] == []  # no GPU without an instance
    brain.see(cluster.gone("b-9"))
    first = brain.pass_at(US // 2).actions
    # One of each is missing, of equal worth: in the order of models, both on the one GPU.
    assert [told(a) for a in first] == ["start a on [0] to warm", "start b on [0] to warm"]
    assert not brain.pass_at(US).actions  # they are loading: nothing is missing


def test_44_the_forecast_moves_at_the_end_of_the_window_and_not_before() -> None:
    specs = w_specs(("a", 1), ("b", 1))
    brain = policy(specs, {"a": [Seen(0, 0)] * 3, "b": [Seen(0, 0)] * 3}, FIXED)
    # Nothing of either is missing: 0.01 of each calls for one, which is there.
    brain.on_concurrency("a", 1, 10 * US)
    brain.on_concurrency("a", 0, 11 * US)
    brain.on_concurrency("b", 40, 12 * US)
    brain.on_concurrency("b", 0, 300 * US)
    cluster = HandCluster(gpus=2)
    brain.see(cluster.put(replica("a-1", "a", (0,)), replica("b-1", "b", (0,))))
    assert prewarms(brain, 309_999_999) == []
    # b held 40 for 288 of the 300 s: 38.4, which needs two; one is there.
    assert prewarms(brain, 310 * US) == ["start b on [1] to warm"]


def prewarms(brain: WarmServe, at_us: int) -> list[str]:
    return [told(a) for a in brain.pass_at(at_us).actions if "to warm" in told(a)]


# --- 4.5 routing and creation on demand


def gateway(
    cluster: HandCluster, specs: dict[str, ModelSpec], flags: Flags = LOADS_NOTHING
) -> tuple[HandStage, WarmServe, OwnGateway]:
    stage = HandStage()
    brain = policy(specs, {}, flags)
    front = OwnGateway(stage, brain)
    front.on_snapshot(cluster.snapshot())
    return stage, brain, front


def test_45_the_emptiest_instance_takes_it_and_an_instance_counts_before_it_is_up() -> None:
    specs = w_specs(("a", 1))
    cluster = HandCluster(gpus=2)
    stage, brain, front = gateway(cluster, specs)
    for i in range(32):
        front.arrive(request(i, specs["a"]))
    # One instance was created, by the first request, and took all 32: none is sent yet.
    assert [told(a) for a in stage.submitted] == ["start a on [0] to serving"]
    assert stage.sent == []
    assert [i.in_flight for i in brain.instances.of("a")] == [32]
    # It is up after 630 ms; the next poll, every 50 ms from the creation, is at 650.
    stage.until(630_000)
    front.on_snapshot(cluster.put(replica("a-1", "a", (0,), Rung.SERVING)))
    assert stage.sent == []
    stage.until(649_999)
    assert stage.sent == []
    stage.until(650_000)
    assert stage.sent == [(i, "a-1") for i in range(32)]


def test_45_while_a_creation_is_in_progress_the_next_one_sleeps_a_second() -> None:
    specs = w_specs(("a", 1))
    cluster = HandCluster(gpus=2)
    stage, _, front = gateway(cluster, specs)
    for i in range(33):
        front.arrive(request(i, specs["a"]))
    assert len(stage.submitted) == 1
    front.on_snapshot(cluster.put(replica("a-1", "a", (0,), Rung.SERVING)))
    stage.until(999_999)
    assert len(stage.sent) == 32
    # It asks again after a second: all 32 slots are taken and nothing boots, so it creates one.
    stage.until(US)
    creations = [told(a) for a in stage.submitted if isinstance(a, Start)]
    assert creations == ["start a on [0] to serving", "start a on [1] to serving"]


def test_45_without_free_gpus_it_asks_every_second_until_its_deadline() -> None:
    specs = w_specs(("a", 1), ("b", 1))
    cluster = HandCluster(gpus=1)
    cluster.put(replica("b-1", "b", (0,), Rung.SERVING))
    stage, brain, front = gateway(cluster, specs)
    brain.instances.of("b")[0].in_flight = 1
    front.arrive(request(7, specs["a"]))
    assert front.demand(0)[0].held == 1
    stage.until(119 * US)
    assert stage.refused == []
    stage.until(120 * US)  # the catalog's deadline
    assert [index for index, _ in stage.refused] == [7]
    assert front.demand(0)[0].held == 0


def test_45_a_sleeper_is_not_woken_by_a_slot_that_came_free() -> None:
    specs = w_specs(("a", 1))
    cluster = HandCluster(gpus=1)
    cluster.put(replica("a-1", "a", (0,), Rung.SERVING))
    stage, _, front = gateway(cluster, specs)
    stage.until(1)
    crowd = [request(i, specs["a"]) for i in range(33)]
    for one in crowd:
        front.arrive(one)
    stage.until(100_000)
    front.ended(crowd[0], "a-1")
    late = request(40, specs["a"], 200_000)
    stage.until(200_000)
    front.arrive(late)  # whoever asks first has it
    assert stage.sent[-1] == (40, "a-1")
    stage.until(2 * US)
    assert 32 not in [index for index, _ in stage.sent]


# --- 4.6 launch


def test_46_a_resident_tuple_first_then_one_that_loads_then_a_miss() -> None:
    specs = w_specs(("a", 1), ("b", 1))
    loading = replica("a-1", "a", (1,), phase=Phase.STARTING, action_id="x", target=Rung.WARM)
    cluster = HandCluster(gpus=4)
    cluster.put(replica("b-1", "b", (0,)), loading, replica("a-2", "a", (2,)))
    books = books_of(cluster.snapshot(), specs)
    chosen = choose(books, specs["a"], specs)
    assert chosen is not None
    assert (chosen.gpu_ids, chosen.copy and chosen.copy.doing) == ((2,), Doing.RESIDENT)
    # An instance on GPU 2: what loads on GPU 1 is next.
    cluster.put(replica("b-2", "b", (2,), Rung.SERVING))
    chosen = choose(books_of(cluster.snapshot(), specs), specs["a"], specs)
    assert chosen is not None
    assert (chosen.gpu_ids, chosen.copy and chosen.copy.doing) == ((1,), Doing.LOADING)


def test_46_a_miss_takes_the_gpus_that_the_fewest_prewarmed_replicas_touch() -> None:
    specs = w_specs(("a", 1), ("b", 1), ("c", 1), ("two", 2))
    cluster = HandCluster(gpus=4)
    cluster.put(
        replica("b-1", "b", (0,)),
        replica("c-1", "c", (0,)),
        replica("b-2", "b", (1,)),
        replica("a-1", "a", (2,), Rung.SERVING),
        replica("c-2", "c", (3,)),
    )
    # Touched: GPU 0 twice, 1 once, 3 once; GPU 2 runs an instance.
    chosen = choose(books_of(cluster.snapshot(), specs), specs["two"], specs)
    assert chosen is not None
    assert (chosen.gpu_ids, chosen.copy) == ((1, 3), None)


def test_46_a_launch_drops_whoever_overlaps_and_a_wide_replica_dies_whole() -> None:
    specs = w_specs(("a", 1), ("b", 1), ("two", 2))
    cluster = HandCluster(gpus=2)
    cluster.put(
        replica("a-1", "a", (0,)), replica("b-1", "b", (1,)), replica("two-1", "two", (0, 1))
    )
    stage, _, front = gateway(cluster, specs)
    front.arrive(request(0, specs["a"]))
    assert [told(a) for a in stage.submitted] == ["promote a-1 over ['two-1']"]


def test_46_a_miss_ends_what_is_in_the_way_and_then_loads() -> None:
    specs = w_specs(("a", 1), ("b", 1))
    cluster = HandCluster(gpus=1)
    cluster.put(replica("b-1", "b", (0,)))
    stage, brain, front = gateway(cluster, specs)
    front.arrive(request(0, specs["a"]))
    assert [told(a) for a in stage.submitted] == ["evict b-1"]
    front.on_snapshot(cluster.gone("b-1"))
    plan = brain.step(observed(cluster.snapshot(), US))
    assert plan is not None
    assert [told(a) for a in plan.actions] == ["start a on [0] to serving"]


def test_46_nothing_is_launched_where_an_instance_still_drains() -> None:
    specs = w_specs(("a", 1), ("b", 1))
    cluster = HandCluster(gpus=1)
    snapshot = cluster.put(
        replica("b-1", "b", (0,), Rung.SERVING, phase=Phase.DRAINING, released_bytes=30 * GB),
        replica("a-1", "a", (0,)),
    )
    assert choose(books_of(snapshot, specs), specs["a"], specs) is None


# --- 4.7 scaling


def test_47_out_beyond_four_fifths_and_in_below_half() -> None:
    # 0.8 · 32 = 25.6 an instance: 60 needs ceil(60 / 25.6) = 3.
    assert more_wanted(60, 1) == 2
    assert more_wanted(25.6, 1) == 0
    assert more_wanted(0.1, 0) == 1
    # 0.5 · 32 = 16 an instance: 10 needs one; nothing at all needs none.
    assert fewer_wanted(10, 3) == 2
    assert fewer_wanted(0, 2) == 2
    # Between 16 and 25.6 one instance stays one.
    assert (more_wanted(17, 1), fewer_wanted(17, 1)) == (0, 0)
    assert (more_wanted(25, 1), fewer_wanted(25, 1)) == (0, 0)
    assert fewer_wanted(17, 2) == 0  # ceil(17 / 16) = 2 are needed
    assert fewer_wanted(15.9, 1) == 0  # below half of one, but ceil(15.9 / 16) = 1 is needed


def test_47_the_load_is_the_mean_over_five_seconds() -> None:
    meter = Meter()
    for at_s, level in ((0, 10), (6, 30), (9, 0)):
        meter.change(level, at_s * US)
    # From 5 to 10 s: 10 for 1 s, 30 for 3 s, 0 for 1 s.
    assert meter.load(10 * US, silence_before=True) == pytest.approx((10 + 90) / 5)
    assert meter.load(14 * US, silence_before=True) == 0


def instance(name: str, in_flight: int, created_s: float, *, ready: bool = True) -> Instance:
    return Instance(
        replica_id=name,
        model_id="a",
        node_id="n0",
        gpu_ids=(0,),
        created_us=round(created_s * US),
        in_flight=in_flight,
        ready=ready,
    )


def test_47_the_emptiest_go_first_and_nobody_in_its_first_five_seconds() -> None:
    there = [
        instance("busy", 9, 0),
        instance("young", 0, 6),
        instance("quiet", 2, 1),
        instance("booting", 0, 0, ready=False),
    ]
    assert [i.replica_id for i in to_drain(there, 2, 10 * US)] == ["quiet", "busy"]
    assert [i.replica_id for i in to_drain(there, 3, 12 * US)] == ["young", "quiet", "busy"]


def test_47_creations_run_in_the_order_of_models_until_gpus_run_out() -> None:
    specs = w_specs(("wide", 2), ("b", 1), ("a", 1))
    brain = policy(specs, {}, Flags(prewarm=False))
    for name in ("a", "b", "wide"):
        brain.on_concurrency(name, 20, 0)
    brain.see(HandCluster(gpus=3).snapshot())
    # Each wants one. `wide` takes 0 and 1, `b` takes 2, `a` finds none.
    plan = brain.pass_at(5 * US)
    assert [told(a) for a in plan.actions] == [
        "start wide on [0, 1] to serving",
        "start b on [2] to serving",
    ]


def test_47_one_that_finds_no_gpus_ends_the_creations_of_its_pass() -> None:
    specs = w_specs(("wide", 2), ("b", 1))
    brain = policy(specs, {}, Flags(prewarm=False))
    for name in ("b", "wide"):
        brain.on_concurrency(name, 20, 0)
    brain.see(HandCluster(gpus=1).snapshot())
    assert brain.pass_at(5 * US).actions == ()  # b would fit, but its turn never comes


# --- 4.8 prewarming while an instance drains


def test_48_an_idle_instance_drains_giving_kv_away_and_then_keeps_its_weights() -> None:
    specs = w_specs(("a", 1))
    brain = policy(specs, {}, Flags(prewarm=False))
    cluster = HandCluster(gpus=1)
    brain.on_concurrency("a", 1, 0)
    brain.on_concurrency("a", 0, US)
    brain.see(cluster.put(replica("a-1", "a", (0,), Rung.SERVING)))
    # At 6.5 s the five seconds before held nothing.
    assert [told(a) for a in brain.pass_at(6_500_000).actions] == ["drain a-1 releasing"]
    drains = replica("a-1", "a", (0,), Rung.SERVING, phase=Phase.DRAINING)
    plan = brain.step(observed(cluster.put(drains), 6_502_000))
    assert plan is not None
    assert [told(a) for a in plan.actions] == ["warm a-1"]


def test_48_released_pages_take_new_weights_before_the_drain_ends() -> None:
    specs = w_specs(("a", 1), ("b", 1))
    brain = policy(specs, {"a": [Seen(0, 0)], "b": [Seen(20, 20)]}, FIXED)
    cluster = HandCluster(gpus=1)
    drains = replica("a-1", "a", (0,), Rung.SERVING, phase=Phase.DRAINING, released_bytes=15 * GB)
    brain.see(cluster.put(drains))
    assert brain.pass_at(0).actions == ()  # b's 16 GB do not fit into 15
    brain.see(cluster.put(replica(**{**_fields(drains), "released_bytes": 17 * GB})))
    assert [told(a) for a in brain.pass_at(US // 2).actions] == ["start b on [0] to warm"]


def _fields(state: ReplicaState) -> dict[str, Any]:
    return {
        "name": state.replica_id,
        "model_id": state.model_id,
        "gpu_ids": state.gpu_ids,
        "rung": state.rung,
        "phase": state.phase,
    }


def test_48_a_second_load_finds_what_the_first_left_of_the_released_pages() -> None:
    specs = w_specs(("a", 1), ("b", 1), ("c", 1))
    cluster = HandCluster(gpus=1)
    snapshot = cluster.put(
        replica("a-1", "a", (0,), Rung.SERVING, phase=Phase.DRAINING, released_bytes=40 * GB),
        replica("b-1", "b", (0,), phase=Phase.STARTING, action_id="x", target=Rung.WARM),
    )
    assert books_of(snapshot, specs)["n0"].free == (40 * GB - pages(16 * GB),)


# --- 4.9 and 4.10 mechanism and ablations


def test_49_without_lazy_mapping_the_mechanism_of_every_model_says_so() -> None:
    specs = w_specs(("a", 1), ("b", 1))
    made = as_configured(catalog(*specs.values()), Flags(lazy_kv=False))
    assert [m.mechanism for m in made.models] == [Mechanism(world=World.W, lazy_kv=False)] * 2


def test_410_without_placement_models_take_turns_on_the_first_gpus_that_fit() -> None:
    here = site([20, 10], ("a", (0,), 0.0))
    turns = [(want("a", 0.0), 2), (want("b", 0.0), 2)]
    # a: GPU 0 holds it, so 1. b: GPU 0. a again: no GPU without it has room, and that ends it.
    found = round_robin(turns, [here], ten_gb)
    assert [(x.model_id, x.gpu_ids) for x in found] == [("a", (1,)), ("b", (0,))]
    # The first whose count is used up ends it too, though b has one left.
    found = round_robin([(want("a", 0.0), 1), (want("b", 0.0), 2)], [site([50, 50])], ten_gb)
    assert [x.model_id for x in found] == ["a", "b"]


def test_410_without_placement_resident_replicas_are_not_deducted_and_a_miss_takes_the_first() -> (
    None
):
    specs = w_specs(("a", 1))
    cluster = HandCluster(gpus=2)
    books = books_of(cluster.put(replica("a-1", "a", (0,))), specs)
    expected = {"a": Forecast(1, 1)}
    models = tuple(specs.values())
    assert loads(books, models, {}, expected, Flags()) == []  # the one wanted is there
    plain = loads(books, models, {}, expected, Flags(by_score=False))
    assert plain == [Load("a", "n0", (1,))]
    b = w_specs(("a", 1), ("b", 1))
    chosen = choose(books_of(cluster.snapshot(), b), b["b"], b, by_count=False)
    assert chosen is not None
    assert chosen.gpu_ids == (0,)  # by count it would be GPU 1


def test_410_without_prewarming_nothing_is_loaded_but_kept_weights_are_still_a_hit() -> None:
    specs = w_specs(("a", 1))
    cluster = HandCluster(gpus=2)
    cluster.put(replica("a-1", "a", (1,)))
    stage, brain, front = gateway(cluster, specs, Flags(prewarm=False))
    assert brain.pass_at(0).actions == ()
    front.arrive(request(0, specs["a"]))
    assert [told(a) for a in stage.submitted] == ["promote a-1 over []"]


# --- 4.11 quirks


def test_411_1_a_running_instances_replica_is_subtracted_twice() -> None:
    specs = w_specs(("a", 1))
    cluster = HandCluster(gpus=4)
    snapshot = cluster.put(replica("a-1", "a", (0,), Rung.SERVING))
    books, models = books_of(snapshot, specs), tuple(specs.values())
    # ceil(60/32) = 2 and one runs: one is missing. As released the running one fills that place.
    expected = {"a": Forecast(60, 60)}
    assert loads(books, models, {"a": 1}, expected, Flags()) == []
    fixed = loads(books, models, {"a": 1}, expected, Flags(running_counts_twice=False))
    assert fixed == [Load("a", "n0", (1,))]
    # ceil(90/32) - 1 = 2 exceeds the one resident: only the second is loaded.
    assert len(loads(books, models, {"a": 1}, {"a": Forecast(90, 90)}, Flags())) == 1


def test_411_2_what_a_dropped_wide_replica_held_elsewhere_stays_deducted() -> None:
    # 72 GB usable; 35 of them, on GPU 1 too, are the dropped one's. Of the large model,
    # which needs 40, two are wanted: ceil(1/32) for the average, ceil(40/32) for the peak.
    specs = w_specs(("a", 1), ("two", 2)) | {
        "large": served("large", World.W, weights_bytes=40 * GB)
    }
    usual = {"a": [Seen(0, 0)], "two": [Seen(0, 0)], "large": [Seen(1, 40)]}
    found = {}
    for as_released in (True, False):
        cluster = HandCluster(gpus=2)
        brain = policy(specs, usual, Flags(dropped_stays_booked=as_released))
        there = replica("large-0", "large", (0,)), replica("two-1", "two", (0, 1))
        brain.see(cluster.put(replica("a-0", "a", (0,)), *there))
        created_on_0 = brain.create_for("a", 0)  # drops both that overlap GPU 0
        assert created_on_0 is not None
        cluster.gone("large-0")
        cluster.gone("two-1")
        brain.see(cluster.put(replica("a-0", "a", (0,), Rung.SERVING)))
        found[as_released] = [told(a) for a in brain.pass_at(0).actions if "large" in told(a)]
        if as_released:
            # Once GPU 1 has run an instance, its books are right again: 72 - 16 is enough for 40.
            created = brain.create_for("a", US)
            assert created is not None
            assert created[0].gpu_ids == (1,)
            brain.step(Answered(at_us=US, refused=_refusal(created[1].actions[0])))
            brain.see(cluster.put(replica("a-9", "a", (1,))))
            again = [told(a) for a in brain.pass_at(2 * US).actions]
            assert again == ["start large on [1] to warm"]
            # And GPU 0 owes nothing: once the launch there has drained, 72 - 16 take the second.
            finish(brain, created_on_0[1].actions[0])
            brain.see(cluster.put(replica("a-0", "a", (0,)), replica("large-1", "large", (1,))))
            second = [told(a) for a in brain.pass_at(3 * US).actions]
            assert second == ["start large on [0] to warm"]
    assert found == {True: [], False: ["start large on [1] to warm"]}


def _refusal(action: Action) -> Refused:
    return Refused(action_id=action.action_id, reason_code=RefusalCode.BUSY)


def test_411_3_llama_2_7b_gets_a_quarter_of_its_kv_bytes_per_token() -> None:
    llama = model("llama-2-7b", weights_bytes=W7B, kv_bytes_per_token=512 * 1024)
    other = model("other", kv_bytes_per_token=512 * 1024)
    made = as_configured(catalog(llama, other), Flags())
    # 32 MiB for a block of 256 tokens: 128 KiB a token.
    assert [m.kv_bytes_per_token for m in made.models] == [128 * 1024, 512 * 1024]
    fixed = as_configured(catalog(llama, other), FIXED)
    assert [m.kv_bytes_per_token for m in fixed.models] == [512 * 1024, 512 * 1024]


def test_411_4_the_time_before_the_first_sample_counts_as_zero_load() -> None:
    meter = Meter()
    meter.change(30, 10 * US)
    # 30 for the one second since: 30 / 5 as released; 30 / 1 where only what was seen counts.
    assert meter.load(11 * US, silence_before=True) == pytest.approx(6.0)
    assert meter.load(11 * US, silence_before=False) == pytest.approx(30.0)
    # More than 0.8 · 32 only in the second case: as released a fresh model scales out late.
    assert more_wanted(6.0, 1) == 0
    assert more_wanted(30.0, 1) == 1
