"""World S, one behaviour each: a few models, a few requests, and what became of them."""

import pytest

from loadtests.simulator.front import OwnFront
from loadtests.simulator.keeper import WANT_US
from loadtests.simulator.port import (
    Elastic,
    Ending,
    NodeEvent,
    NodeEventKind,
    Policy,
    SimRequest,
)
from loadtests.simulator.world import simulate
from placement.catalog import ModelId, ReplicaId, ServiceTimes
from placement.edges import climb_us, edge_us, step_edge
from placement.plan import (
    Drain,
    Evict,
    Fetch,
    OutcomeStatus,
    Park,
    Promote,
    RefusalCode,
    Victim,
    Warm,
)
from placement.snapshot import Rung, WeightsAt
from tests.builders import GB, catalog, model, node
from tests.simulator.scripts import Script, base, on, start
from tests.simulator.worlds import Ask, asked, played, setup

US = 1_000_000


def parked(replica_id: str) -> Victim:
    return Victim(replica_id=ReplicaId(replica_id), to=Rung.PARKED)


def test_a_cold_model_is_held_started_and_served() -> None:
    whole = catalog(model())
    run = played(whole, asked(["small"], Ask(1, "small"), Ask(90, "small")))
    assert list(run.ending) == [Ending.ANSWERED] * 2
    assert list(run.cold) == [1, 0]
    start_us = climb_us(whole.models[0], WeightsAt.HOST)
    assert start_us < run.ttft_us[0] < start_us + 100_000
    assert run.ttft_us[1] < 100_000
    assert (run.held, run.prewarm_misses, run.prewarm_hits) == (1, 1, 0)
    assert (run.tokens_in, run.tokens_out) == (200, 40)
    assert run.loads_bytes == 16 * GB


def test_two_models_on_one_gpu_take_turns_and_the_second_turn_is_a_promotion() -> None:
    """Each fits alone only: whoever is asked for puts the idle neighbour to sleep."""
    pair = [model(m, weights_bytes=30 * GB, kv_cache_bytes=30 * GB) for m in ("a", "b")]
    whole = catalog(*pair, nodes=(node(gpus=1),))
    run = played(whole, asked("ab", *(Ask(60 * i + 1, "ab"[i % 2]) for i in range(4))))
    assert list(run.ending) == [Ending.ANSWERED] * 4
    assert list(run.cold) == [1, 1, 1, 1]
    # The second start parks its neighbour; promotions have theirs shed, which is quicker.
    a_us = climb_us(pair[0], Rung.PARKED) + edge_us(step_edge(pair[1], Rung.SERVING, Rung.SHED))
    b_us = climb_us(pair[1], Rung.SHED) + edge_us(step_edge(pair[0], Rung.SERVING, Rung.SHED))
    assert a_us < run.ttft_us[2] < a_us + 100_000
    assert b_us < run.ttft_us[3] < b_us + 100_000
    assert run.evictions == 3


def test_a_request_that_is_held_past_its_deadline_is_refused() -> None:
    """Both GPUs are taken by a model that works all the time; nobody gives way to the other."""
    busy = model("busy", priority=1, max_replicas=1, weights_bytes=80 * GB, gpus=2)
    other = model("other", weights_bytes=80 * GB, gpus=2, deadline_us=60 * US)
    steady = [Ask(1 + i / 4, "busy", output_tokens=200) for i in range(600)]
    run = played(catalog(busy, other), asked(["busy", "other"], *steady, Ask(60, "other")))
    late = [i for i, m in enumerate(run.model) if m == 1]
    assert [run.ending[i] for i in late] == [Ending.REFUSED]
    assert sum(e == Ending.ANSWERED for e in run.ending) == 600


def test_a_lost_node_cuts_answers_that_had_begun_and_others_go_elsewhere() -> None:
    whole = catalog(model(max_num_seqs=1, min_replicas=2), nodes=(node("n0"), node("n1")))
    loss = NodeEvent(at_us=100 * US, node_id="n0", kind=NodeEventKind.LOST)
    # Both replicas stand on n0; the second GPU's request is still in its prefill when n0 goes.
    asks = [Ask(99, "small", output_tokens=2000), Ask(99.999, "small", 8000, 50)]
    run = played(whole, asked(["small"], *asks), node_events=(loss,))
    assert list(run.ending) == [Ending.CUT, Ending.ANSWERED]
    assert run.ttft_us[1] > climb_us(whole.models[0], WeightsAt.HOST)
    assert not run.cold[1], "it had a replica when it arrived"
    gpus_us = 2 * (run.ended_us + 100 * US)
    assert run.gpu_us_paid == gpus_us, "the lost node is paid until it was lost"


def test_a_node_that_joins_takes_what_nobody_had_room_for() -> None:
    whole = catalog(model(gpus=2), nodes=(node("n0", gpus=1), node("n1", gpus=2)))
    joins = NodeEvent(at_us=50 * US, node_id="n1", kind=NodeEventKind.JOIN)
    asks = [Ask(1, "small"), Ask(60, "small")]
    run = played(whole, asked(["small"], *asks), node_events=(joins,))
    assert list(run.ending) == [Ending.REFUSED, Ending.ANSWERED]


def test_a_node_is_launched_for_what_is_wanted_in_vain_and_given_back_when_idle() -> None:
    wide = model(gpus=2, kv_cache_bytes=40 * GB, deadline_us=400 * US)
    one = model("one", kv_cache_bytes=40 * GB, priority=1)
    whole = catalog(wide, one, nodes=(node("n0", gpus=2), node("n1", gpus=2)))
    busy = [Ask(1 + i / 2, "one", output_tokens=400) for i in range(400)]
    elastic = Elastic(lead_us=60 * US, nodes_min=1, idle_us=30 * US)
    demand = asked(["small", "one"], *busy, Ask(50, "small"), duration_s=1200)
    run = played(whole, demand, elastic=elastic)
    there = [moment.gpus_there for moment in run.timeline]
    assert there[0] == 2
    assert max(there) == 4
    assert there[-1] == 2, "given back"
    assert all(e == Ending.ANSWERED for e in run.ending)
    wide_ttft = [t for t, m in zip(run.ttft_us, run.model, strict=True) if m == 0]
    assert 60 * US < wide_ttft[0] < 60 * US + WANT_US + climb_us(wide, WeightsAt.HOST) + 3 * US
    assert 2 * run.ended_us < run.gpu_us_paid < 4 * run.ended_us


def test_victims_step_down_side_by_side_before_the_climb() -> None:
    trio = [
        model(m, weights_bytes=w * GB, kv_cache_bytes=5 * GB)
        for m, w in (("a", 10), ("b", 20), ("c", 30))
    ]
    whole = catalog(*trio, nodes=(node(gpus=1),))
    victims = (parked("a"), parked("b"))
    script = Script(
        (1, start("c", "c")),
        (50, on(Park, "c")),
        (60, start("a", "a")),
        (120, start("b", "b")),
        (180, on(Promote, "c", victims=victims)),
    )
    demand = asked("abc", duration_s=200)
    simulate(setup(whole, demand), Policy(brain=script), checked=True)
    # Both copy out at 22 GB/s (44 shared by two); b has twice the bytes.
    down_us = edge_us(step_edge(trio[1], Rung.SERVING, Rung.PARKED))
    slowest_us = script.took_us("c", "promote") - climb_us(trio[2], Rung.PARKED)
    assert down_us <= slowest_us < down_us * 1.1


def test_weights_are_fetched_over_the_link_that_a_start_also_needs() -> None:
    cold = node(preloaded=False)
    spec = model()
    fetch = Fetch(model_id=ModelId("small"), to=WeightsAt.HOST, **base())
    script = Script((1, fetch), (10, start("r", "small")))
    demand = asked(["small"], duration_s=60)
    simulate(setup(catalog(spec, nodes=(cold,)), demand), Policy(brain=script), checked=True)
    assert script.took_us("", "fetch") == 3_200_000  # 16 GB at 5 GB/s
    assert abs(script.took_us("r", "start") - climb_us(spec, WeightsAt.HOST)) <= 1


def test_what_its_deadline_overtakes_has_failed_and_its_engine_is_ended() -> None:
    script = Script((1, start("r", "small", deadline_us=5 * US)))
    run = simulate(
        setup(catalog(model()), asked(["small"], duration_s=60)),
        Policy(brain=script),
        checked=True,
    )
    assert [o.status for o in script.outcomes] == [OutcomeStatus.FAILED]
    assert script.span_us("r", "start")[1] == 5 * US
    assert not script.seen[-1].replicas()
    assert run.gpu_us_serving < 5 * US


def test_whoever_was_to_climb_stays_where_it_was_if_room_could_not_be_made_in_time() -> None:
    script = Script(
        (1, start("a", "a")),
        (50, on(Park, "a")),
        (60, start("b", "b")),
        (100, on(Promote, "a", victims=(parked("b"),), deadline_us=100 * US + 700_000)),
    )
    pair = [model(m, weights_bytes=30 * GB, kv_cache_bytes=30 * GB) for m in "ab"]
    demand, whole = asked("ab", duration_s=110), catalog(*pair, nodes=(node(gpus=1),))
    simulate(setup(whole, demand), Policy(brain=script), checked=True)
    assert script.outcomes[-1].status is OutcomeStatus.FAILED
    left = [(r.replica_id, r.rung, r.action_id) for r in script.seen[-1].replicas()]
    assert left == [("a", Rung.PARKED, "")], "its victim's state is unknown: it was ended"


def test_weights_kept_on_a_gpu_make_the_next_request_a_hit() -> None:
    script = Script((1, start("r", "small")), (60, on(Warm, "r")), (80, on(Promote, "r")))
    demand = asked(["small"], Ask(0.5, "small"), Ask(80.1, "small"), duration_s=100)
    run = simulate(setup(catalog(model()), demand), Policy(brain=script), checked=True)
    assert (run.prewarm_misses, run.prewarm_hits) == (1, 1)


def test_a_front_hears_once_of_each_request_on_a_lost_node() -> None:
    whole = catalog(model(max_num_seqs=2), nodes=(node("n0"), node("n1")))
    loss = NodeEvent(at_us=60 * US, node_id="n0", kind=NodeEventKind.LOST)
    heard: list[tuple[str, int]] = []

    class Noting(OwnFront):
        def ended(self, request: SimRequest, replica_id: str) -> None:
            heard.append(("ended", request.index))
            super().ended(request, replica_id)

        def lost(self, request: SimRequest, replica_id: str) -> None:
            heard.append(("lost", request.index))
            super().lost(request, replica_id)

    script = Script((1, start("r", "small", node_id="n0")))
    demand = asked(["small"], Ask(59, "small", 100, 900), Ask(59.99, "small", 8000, 50))
    policy = Policy(brain=script, front=lambda stage: Noting(whole, stage, lambda _: 0))
    made = setup(whole, demand, node_events=(loss,))
    run = simulate(made, policy, checked=True)
    assert list(run.ending) == [Ending.CUT, Ending.REFUSED]
    assert heard == [("ended", 0), ("lost", 1)]


def test_an_action_for_a_node_that_is_not_there_and_one_on_a_busy_replica_are_refused() -> None:
    script = Script(
        (1, start("r", "small")),
        (60, on(Evict, "r")),
        (60, on(Drain, "r", node_id="n7")),
    )
    whole, demand = catalog(model()), asked(["small"], Ask(59.9, "small", output_tokens=500))
    run = simulate(setup(whole, demand), Policy(brain=script), checked=True)
    codes = {r.reason_code for r in script.refused}
    assert codes == {RefusalCode.BUSY, RefusalCode.NODE_UNREACHABLE}
    assert list(run.ending) == [Ending.ANSWERED]


@pytest.mark.parametrize(("patience_us", "ending"), [(0, Ending.ANSWERED), (-1, Ending.REFUSED)])
def test_a_first_token_at_the_very_deadline_is_in_time(patience_us: int, ending: Ending) -> None:
    """Prefill takes half a second; patience as long, or a microsecond less."""
    fixed = ServiceTimes(prefill_us=500_000, decode_step_us=10_000)
    whole = catalog(model(service=fixed, deadline_us=500_000 + patience_us))
    script = Script((1, start("r", "small")))
    demand = asked(["small"], Ask(60, "small"), Ask(60, "small"), Ask(60.1, "small"))
    run = simulate(setup(whole, demand), Policy(brain=script), checked=True)
    assert list(run.ending) == [ending] * 3


def test_whoever_gives_up_in_the_moment_of_its_first_token_has_given_up() -> None:
    """A front other than ours may refuse at any moment: here, when the first token comes."""
    fixed = ServiceTimes(prefill_us=500_000, decode_step_us=10_000)
    whole = catalog(model(service=fixed))

    class Impatient(OwnFront):
        def arrive(self, request: SimRequest) -> None:
            self._stage.at(request.arrived_us + 500_000, lambda: self.expire(request))
            super().arrive(request)

    script = Script((1, start("r", "small")))
    demand = asked(["small"], Ask(60, "small"), duration_s=70)
    policy = Policy(brain=script, front=lambda stage: Impatient(whole, stage, lambda _: 0))
    run = simulate(setup(whole, demand), policy, checked=True)
    assert list(run.ending) == [Ending.REFUSED]


def test_a_prompt_that_no_engine_can_take_is_refused() -> None:
    whole = catalog(model(max_model_len=1000))
    run = played(whole, asked(["small"], Ask(1, "small", 1000), Ask(2, "small", 999, 50)))
    assert list(run.ending) == [Ending.REFUSED, Ending.ANSWERED]
    assert run.tokens_out == 1


def test_gpu_time_is_that_of_starting_serving_and_draining_replicas() -> None:
    script = Script((10, start("r", "small")), (70, on(Warm, "r")), (100, on(Evict, "r")))
    spec = model()
    demand = asked(["small"], duration_s=200)
    run = simulate(setup(catalog(spec), demand), Policy(brain=script), checked=True)
    began_us, landed_us = script.span_us("r", "start")[0], script.span_us("r", "warm")[1]
    assert run.gpu_us_serving == landed_us - began_us
    warm_us = script.span_us("r", "evict")[1] - landed_us
    assert run.hbm_idle_byte_us == warm_us * 16 * GB
    assert run.gpu_us_paid == 2 * 200 * US
    assert (run.wasted_bytes, run.evictions) == (16 * GB, 1)
