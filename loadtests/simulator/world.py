"""A cluster simulated: requests arrive, nodes move, a policy decides, a `Run` comes out.

In: a `Setup` and a `Policy`. Out: a `Run`. Never: reads a clock, draws (demand is drawn before),
decides. Everything happens at a moment of the agenda; arrivals are merged in as they are read, so
a day's requests are never in memory together.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from gateway.openai_api import Refusal
from gateway.routing import Lane
from loadtests.simulator.agenda import Act, Agenda
from loadtests.simulator.engine import Engine
from loadtests.simulator.fleet import SimFleet
from loadtests.simulator.front import OwnFront
from loadtests.simulator.laws import Laws
from loadtests.simulator.meter import Meter
from loadtests.simulator.nodes import Node, Site
from loadtests.simulator.port import (
    Ending,
    Front,
    Policy,
    Run,
    Setup,
    SimRequest,
)
from loadtests.simulator.rented import Rented
from loadtests.simulator.rounds import Rounds
from loadtests.simulator.shared_node import SharedNode
from loadtests.simulator.stock_node import StockNode
from placement.catalog import Catalog, NodeSpec
from placement.catalog import World as Mechanics
from placement.plan import Plan
from placement.service_time import longest_tokens
from prewarm.traces.records import Requests

US = 1_000_000
LOOK_US = 10 * US
LOOKS_MAX = 2_000
SLICE = 16_384
"""Requests that are plain numbers in memory at a time."""

Progress = Callable[[float], None]
"""Told now and then which share of the simulated time has passed."""


def simulate(
    setup: Setup, policy: Policy, progress: Progress | None = None, *, checked: bool = False
) -> Run:
    """One run from the warm-up to the last request's end. `checked` asserts the laws all along."""
    return World(setup, policy, checked=checked).run(progress)


class World:
    """The stage on which a front and a brain act (`port.Stage`)."""

    def __init__(self, setup: Setup, policy: Policy, *, checked: bool = False) -> None:
        catalog = policy.catalog or setup.catalog
        _same_world(setup, catalog)
        self._setup = setup
        self._catalog = catalog
        self._agenda = Agenda()
        self._meter = Meter(catalog)
        self._site = Site(self._agenda, self._meter, self)
        self._specs = catalog.models
        self._longest = [longest_tokens(m) for m in catalog.models]
        self._rounds = Rounds(self._agenda, policy.brain, policy.tick_us)
        self._fleet = SimFleet(catalog, self._site, self._make_node, self._rounds)
        self._front, self._on_lane = self._make_front(policy)
        self._listen = policy.on_concurrency
        self._open = [0] * len(catalog.models)
        """Requests of each model that have arrived and not ended."""
        self._count = 0
        self._held_once = 0
        self._rented = Rented(setup, catalog, self._agenda, self._meter, self._fleet)
        self._laws = Laws(self._fleet.nodes, self._site.engines) if checked else None
        self._end_us = setup.warmup_us + setup.demand.duration_us

    def _make_front(self, policy: Policy) -> tuple[Front, Callable[[SimRequest, Lane], None]]:
        front: Front = OwnFront(self._catalog, self, self._rounds.eta_us)
        if policy.front is not None:
            front = policy.front(self)
        return front, front.go if isinstance(front, OwnFront) else _no_lane

    def _make_node(self, node_id: str) -> Node:
        spec = self._node_spec(node_id)
        if self._setup.world is Mechanics.W:
            return SharedNode(spec, self._specs, self._site)
        return StockNode(spec, self._specs, self._site)

    def _node_spec(self, node_id: str) -> NodeSpec:
        spec = self._catalog.node(node_id)
        assert spec is not None, f"{node_id} is not in the catalog"
        return spec

    # --- the course of a run

    def run(self, progress: Progress | None = None) -> Run:
        self._begin()
        for chunk in self._setup.demand.chunks():
            for start in range(0, len(chunk), SLICE):
                self._play(chunk, start)
                if progress is not None:
                    progress(min(self._agenda.now_us / self._end_us, 1.0))
        agenda, after_each = self._agenda, self._after_each
        agenda.run_before(self._end_us, after_each)
        while any(self._open):
            agenda.step()
            if after_each is not None:
                after_each()
        run = self._meter.close(agenda.now_us)
        run.held = self._held_once
        if self._laws is not None:
            self._laws.check_run(run)
        return run

    @property
    def _after_each(self) -> Act | None:
        return self._laws.check if self._laws is not None else None

    def _begin(self) -> None:
        self._rounds.begin(self._front, self._fleet, self._rented)
        self._rented.begin()
        self._agenda.at(0, self._look)

    def _play(self, chunk: Requests, start: int) -> None:
        """One slice of requests, each at its moment, and all that happens before it."""
        names = self._meter.index
        of_stream = np.array([names[model] for model in chunk.streams], dtype=np.int64)
        part = slice(start, start + SLICE)
        model, at_us = of_stream[chunk.stream[part]], chunk.at_us[part] + self._setup.warmup_us
        self._meter.expect(model, at_us)
        rows = zip(
            model.tolist(),
            at_us.tolist(),
            np.maximum(chunk.prompt_tokens[part], 1).tolist(),
            np.maximum(chunk.output_tokens[part], 1).tolist(),
            strict=True,
        )
        run_before, after_each = self._agenda.run_before, self._after_each
        for row in rows:
            run_before(row[1], after_each)
            self._arrive(*row)
            if after_each is not None:
                after_each()

    def _arrive(self, model: int, at_us: int, prompt_tokens: int, output_tokens: int) -> None:
        spec = self._specs[model]
        request = SimRequest(
            self._count, model, spec, prompt_tokens, output_tokens, at_us, self._on_lane
        )
        self._count += 1
        self._open[model] += 1
        if self._listen is not None:
            self._listen(spec.id, self._open[model], at_us)
        if prompt_tokens >= self._longest[model]:
            self.refuse(request, Refusal.BAD_REQUEST)  # as an engine does with what never fits
            return
        self._front.arrive(request)
        self._held_once += request.held_since_us > 0

    # --- port.Stage

    @property
    def now_us(self) -> int:
        return self._agenda.now_us

    def at(self, when_us: int, act: Act) -> None:
        self._agenda.at(when_us, act)

    def send(self, request: SimRequest, replica_id: str) -> None:
        request.replica_id = replica_id
        self._site.engines[replica_id].take(request)

    def refuse(self, request: SimRequest, why: Refusal) -> None:  # noqa: ARG002
        assert not request.first_us, "its answer has begun: it cannot be refused"
        engine = self._site.engines.get(request.replica_id)
        if engine is not None:
            engine.give_up(request)
        self._over(request, Ending.REFUSED)

    def poke(self) -> None:
        self._rounds.poke()

    def submit(self, plan: Plan) -> None:
        self._rounds.act(plan)

    # --- what engines tell

    def on_first_use(self, engine: Engine, request: SimRequest) -> None:
        self._meter.used(engine, request)

    def on_answered(self, engine: Engine, request: SimRequest) -> None:
        model, now_us = request.model, self._agenda.now_us
        self._meter.answered(request, now_us)
        self._open[model] -= 1
        if self._listen is not None:
            self._listen(request.spec.id, self._open[model], now_us)
        self._front.ended(request, engine.replica_id)

    def on_gone(self, engine: Engine) -> None:
        lost = engine.lose()
        if lost:  # when everybody has seen that it is gone
            self._agenda.at(self._agenda.now_us, partial(self._lose, engine.replica_id, lost))

    def _lose(self, replica_id: str, lost: list[SimRequest]) -> None:
        for request in lost:
            if request.first_us > 0:
                self._over(request, Ending.CUT)
                self._front.ended(request, replica_id)
            elif not request.first_us:  # else its deadline came first
                request.replica_id = ""
                self._front.lost(request, replica_id)

    def _over(self, request: SimRequest, ending: Ending) -> None:
        """It ends without a whole answer."""
        request.first_us = -1
        self._meter.unanswered(request, ending)
        self._open[request.model] -= 1
        if self._listen is not None:
            self._listen(request.spec.id, self._open[request.model], self._agenda.now_us)

    def _look(self) -> None:
        now_us = self._agenda.now_us
        engines = self._site.engines.values()
        in_flight = sum(len(engine.requests) for engine in engines)
        held = sum(self._open) - in_flight
        self._meter.look(self._fleet.snapshot, held, in_flight, now_us)
        self._agenda.at(now_us + max(LOOK_US, self._end_us // LOOKS_MAX), self._look)


def _same_world(setup: Setup, catalog: Catalog) -> None:
    for spec in catalog.models:
        if spec.mechanism.world is not setup.world:
            raise ValueError(
                f"{spec.id} is of world {spec.mechanism.world}, the run of world {setup.world}: "
                "set mechanism.world of every model of the catalog to the run's"
            )


def _no_lane(request: SimRequest, lane: Lane) -> None:
    raise AssertionError(f"request {request.index} was sent to lane {lane.lane_id} past its front")
