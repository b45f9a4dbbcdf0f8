"""World S: which engines a plan wants where, and what becomes of it in a simulated cluster."""

from collections.abc import Mapping

import pytest

from loadtests.simulator.port import Policy, Run
from loadtests.simulator.world import simulate
from placement.catalog import Catalog, ModelId
from placement.edges import climb_us
from placement.plan import Action, Evict, Plan, ReasonCode, Start
from placement.planning.outlook import ModelOutlook, Outlook
from placement.planning.paths import DemandPaths
from placement.planning.residency import plan_residency
from placement.planning.rungs import plan_rungs
from placement.snapshot import Rung, WeightsAt
from prewarm.controller import Controller, Event, Observed
from tests.builders import GB, catalog, model, node
from tests.planning.residencies import (
    STEP_US,
    US,
    applied,
    facts,
    futures,
    sleeps,
    stands_at,
)
from tests.simulator.worlds import Ask, asked, setup

WIDE = {"weights_bytes": 30 * GB, "kv_cache_bytes": 30 * GB, "max_replicas": 1}
"""Footprints of 62.5 GB: no two serve side by side on a GPU of 80 GB."""
TWO_GPUS = (node(gpus=2),)


def pairs() -> Catalog:
    return catalog(*(model(m, **WIDE) for m in "abcd"), nodes=TWO_GPUS)


def gpu_of(whole: Catalog, paths: DemandPaths) -> dict[str, tuple[int, ...]]:
    plan = plan_residency(facts(whole), paths)
    assert len(plan.residents) == 4
    return {r.model_id: r.gpu_ids for r in plan.residents}


def test_models_that_burst_together_are_kept_apart() -> None:
    """a and b in the first path, c and d in the second. Each alone is needed in half of the paths:
    only the joint paths tell who may share a GPU."""
    first, second = [[1, 0], [0, 0]], [[0, 0], [1, 0]]
    names = [m.id for m in pairs().models]
    at = gpu_of(pairs(), futures(pairs(), {m: first if m in "ab" else second for m in names}))
    assert at["a"] != at["b"]
    assert at["c"] != at["d"]
    at = gpu_of(pairs(), futures(pairs(), {m: first if m in "ac" else second for m in names}))
    assert at["a"] != at["c"]
    assert at["b"] != at["d"]


def test_copies_of_a_model_stand_on_different_nodes() -> None:
    whole = catalog(model("a", max_replicas=2), nodes=(node("n0"), node("n1")))
    plan = plan_residency(facts(whole), futures(whole, {ModelId("a"): [[2]]}))
    assert {r.node_id for r in plan.residents} == {"n0", "n1"}


def test_an_engine_is_worth_its_start_where_waiting_costs_more_than_idling() -> None:
    """With 1 GPU and r = 9 a start costs a ninth of its time: one in nine paths or more is enough,
    for whom one request would wait."""
    whole = catalog(model("a"))
    for count, wanted in ((8, 1), (12, 0)):
        paths = futures(whole, {ModelId("a"): [[1]] + [[0]] * (count - 1)}, slots=1, service_s=1e6)
        assert len(plan_residency(facts(whole), paths).residents) == wanted


def test_of_two_that_have_no_room_together_the_more_important_one_is_wanted() -> None:
    """3 GB on the host: one process of 2.5 GB, and nobody's weights."""
    for important in "ab":
        specs = [model(m, priority=int(m == important)) for m in "ab"]
        whole = catalog(*specs, nodes=(node(host_bytes=3 * GB),))
        plan = plan_residency(facts(whole), futures(whole, {m.id: [[1]] for m in specs}))
        (only,) = plan.residents
        assert (only.model_id, only.rests) == (important, Rung.SHED)
        (want,) = plan.wants
        assert want.why == "no place has host memory left for it"


def test_each_engine_can_serve_beside_the_residues_of_all() -> None:
    """Asleep each holds 20 GB, and grows by 10 + 5 + 1.5 GB when it serves. Of 72 GB two leave 32,
    and three no more than 12."""
    heavy = {"residue_bytes": 20 * GB, "weights_bytes": 10 * GB, "kv_cache_bytes": 5 * GB}
    whole = catalog(*(model(m, **heavy) for m in "abc"), nodes=(node(gpus=1),))
    plan = plan_residency(facts(whole), futures(whole, {m.id: [[1]] for m in whole.models}))
    assert len(plan.residents) == 2
    (want,) = plan.wants
    assert want.why == "no place has GPU memory left for it"


def test_a_minimum_has_its_place_though_nobody_calls_for_it() -> None:
    whole = catalog(model("a", min_replicas=1), model("b"))
    plan = plan_residency(facts(whole), futures(whole, {m.id: [[0]] for m in whole.models}))
    assert [r.model_id for r in plan.residents] == ["a"]


def test_an_engine_stays_unless_another_is_worth_more_than_both_starts() -> None:
    """Host memory for one process. a sleeps there already, b comes a little or much more often."""
    whole = catalog(model("a"), model("b"), nodes=(node(host_bytes=3 * GB),))
    there = sleeps("r", "a", rung=Rung.SHED)
    for often, stays in ((11, "a"), (30, "b")):
        of_a, of_b = ([[1]] * n + [[0]] * (30 - n) for n in (10, often))
        needs = {ModelId("a"): of_a, ModelId("b"): of_b}
        paths = futures(whole, needs, slots=1, service_s=1e6)
        plan = plan_residency(facts(whole, there), paths)
        assert [r.model_id for r in plan.residents] == [stays]


def test_a_start_is_due_its_length_before_it_is_likely_to_be_of_use() -> None:
    """From the third step on one path in two needs it; one in ten is enough (r = 9)."""
    whole = catalog(model("a"))
    plan = plan_residency(
        facts(whole), paths := futures(whole, {ModelId("a"): [[0, 0, 1], [0, 0, 0]]})
    )
    third_us = paths.start_us + 2 * STEP_US
    assert plan.residents[0].start_by_us == third_us - climb_us(whole.models[0], WeightsAt.HOST)


def test_what_serves_now_is_in_the_way_of_others_until_it_is_needed_no_more() -> None:
    whole = catalog(model("a", **WIDE), model("b", **WIDE), nodes=TWO_GPUS)
    serves = sleeps("r", "a", (0,), Rung.SERVING)
    needs = {ModelId("a"): [[1, 1]], ModelId("b"): [[0, 1]]}
    plan = plan_residency(facts(whole, serves), futures(whole, needs))
    assert stands_at(plan.residents, "b") == [("n0", (1,))]


def test_a_plan_that_came_true_saves_what_it_said_without_paying_again() -> None:
    whole = pairs()
    paths = futures(whole, {m.id: [[1, 0], [0, 1]] for m in whole.models})
    first = plan_residency(facts(whole), paths)
    again = plan_residency(facts(whole, *applied(whole, first), residency=first), paths)
    starts = sum(r.why.numbers["start_cost"] for r in first.residents)
    assert again.value == pytest.approx(first.value + starts)


# --- in a simulated cluster


class Told:
    """Foresight that says the same at all times, and its paths once."""

    def __init__(self, whole: Catalog, needs: Mapping[ModelId, list[list[int]]] | None) -> None:
        self._whole = whole
        self._needs = needs

    def see(self, seen: Observed) -> None:
        """It knows already."""

    def outlook(self, now_us: int) -> Outlook:
        names = [m.id for m in self._whole.models]
        quiet = {str(m): ModelOutlook(model_id=m, rate_per_s=1e-6) for m in names}
        return Outlook(made_us=now_us, models=quiet)

    def paths(self, now_us: int) -> DemandPaths | None:  # noqa: ARG002
        if self._needs is None:
            return None
        told = futures(self._whole, self._needs)
        self._needs = None
        return told


def ran(whole: Catalog, needs: Mapping[ModelId, list[list[int]]] | None, *asks: Ask) -> Run:
    brain = Controller(whole, "t", plan_rungs, Told(whole, needs))
    demand = asked([m.id for m in whole.models], *asks)
    return simulate(setup(whole, demand), Policy(brain=brain), checked=True)


def test_engines_that_may_be_needed_are_there_before_anybody_asks() -> None:
    """Four models on two GPUs, two at a time. Their engines start one after the other and sleep;
    whoever comes waits for a climb, and nobody for a start."""
    whole = pairs()
    needs = {m: [[1, 0], [0, 1]] for m in ("a", "b")} | {m: [[0, 1], [1, 0]] for m in ("c", "d")}
    asks = [Ask(300, "a"), Ask(300, "b"), Ask(600, "c"), Ask(600, "d")]
    start_us = climb_us(whole.models[0], WeightsAt.HOST)
    prepared = ran(whole, {ModelId(m): n for m, n in needs.items()}, *asks)
    assert max(prepared.ttft_us) < 4 * US
    unprepared = ran(whole, None, *asks)
    assert min(unprepared.ttft_us) > start_us


def test_a_request_that_comes_in_the_midst_of_it_is_served_first() -> None:
    """One GPU of a node: a has not come up yet when b is asked for. Its own start comes next, and
    the other residents wait for it."""
    whole = catalog(*(model(m, **WIDE) for m in "abc"), nodes=(node(gpus=1),))
    needs = {m.id: [[1]] for m in whole.models}
    run = ran(whole, needs, Ask(1, "c"), Ask(400, "a"), Ask(500, "b"))
    start_us = climb_us(whole.models[0], WeightsAt.HOST)
    assert run.ttft_us[0] < 2 * start_us + 5 * US, "the start that ran, and its own"
    assert max(run.ttft_us[1:]) < 4 * US


class Noted:
    """A brain whose every action is written down."""

    def __init__(self, brain: Controller) -> None:
        self._brain = brain
        self.actions: list[Action] = []

    def step(self, event: Event) -> Plan | None:
        plan = self._brain.step(event)
        self.actions += plan.actions if plan is not None else ()
        return plan

    def eta_us(self, model_id: str, now_us: int) -> int | None:
        return self._brain.eta_us(model_id, now_us)


def test_once_all_engines_stand_steady_demand_starts_and_ends_none() -> None:
    whole = pairs()
    needs = {m.id: [[1, 0], [0, 1]] for m in whole.models}
    asks = [Ask(300 + 20 * i, "abcd"[i % 4]) for i in range(60)]
    brain = Noted(Controller(whole, "t", plan_rungs, Told(whole, needs)))
    simulate(setup(whole, asked("abcd", *asks)), Policy(brain=brain), checked=True)
    starts = [a for a in brain.actions if isinstance(a, Start)]
    assert sorted(a.model_id for a in starts) == ["a", "b", "c", "d"]
    assert {a.why.code for a in starts} == {ReasonCode.RESIDENCY}
    assert not [a for a in brain.actions if isinstance(a, Evict)]
