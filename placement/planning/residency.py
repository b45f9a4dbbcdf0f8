"""Which engines are to exist, so that climbs are short: the slow plan. A pure function.

In: `Facts`, joint demand paths. Out: a `Residency`. Never: draws, starts anything (`standing` does,
in idle time). Where an engine is nothing that has to exist (world W) the plan is empty.

**Value.** `uses` says what a model's k-th engine saves in each path, `turns` how engines that
share GPUs take turns when a path needs them at the same time. The value of a set of engines, each a
model's k-th at a place, is a sum over GPUs, steps and paths of weighted ranks: monotone and
submodular. From it goes what the starts take of their GPUs, in the operator's price.

**Greedy, lazily.** Whoever adds most per byte of what is scarce comes next (`auction`), where it is
least in the way of others; of places as good as the best, on the node with the fewest of its model,
so that one loss does not cool it everywhere. What it added when it was last looked at bounds what
it adds now, so few are looked at twice.

**Cost of change.** Engines that exist are in the plan from the start and cost no start. One goes
only for the sake of another that adds more than the loss and its own start together (`exchange`).
Those at work stay.

**Bound.** See `residency_bound`.
"""

from collections.abc import Iterator

from placement.catalog import ModelId, NodeId
from placement.plan import Reason, ReasonCode, Want
from placement.planning.auction import WORTH_MIN, Auction
from placement.planning.berths import Berth
from placement.planning.draft import Draft, Facts
from placement.planning.estate import Engine, Estate
from placement.planning.exchange import exchange
from placement.planning.paths import DemandPaths
from placement.planning.residency_bound import bound
from placement.planning.resident import Residency, Resident
from placement.planning.uses import Use, called_for
from placement.snapshot import Rung

EXCHANGES_MAX = 32
"""A plan in which more engines change places than this is as good as it gets in time."""


def plan_residency(facts: Facts, paths: DemandPaths) -> Residency:
    """The slow plan."""
    draft = Draft(facts)
    called = called_for(draft, paths)
    if not called:
        return Residency(made_us=facts.now_us)
    estate = Estate(draft, called, cells=paths.concurrency[0].size)
    limit = bound(estate)
    auction = Auction(estate)
    auction.run()
    for _ in range(EXCHANGES_MAX):
        if not exchange(estate):
            break
        auction.run()
    return Residency(
        made_us=facts.now_us,
        residents=tuple(map(_resident, sorted(estate.engines, key=_rank))),
        value=estate.value,
        bound=limit,
        wants=tuple(_wants(estate)),
    )


def _rank(engine: Engine) -> tuple[float, str, int]:
    return (-engine.adds, engine.berth.spec.id, engine.count)


def _resident(engine: Engine) -> Resident:
    use, berth = engine.use, engine.berth
    numbers = {"value": engine.adds, "replica": float(engine.count), "start_cost": engine.cost}
    return Resident(
        model_id=berth.spec.id,
        node_id=NodeId(berth.node_id),
        gpu_ids=berth.gpu_ids,
        rests=berth.rests,
        why=Reason(code=ReasonCode.RESIDENCY, numbers=numbers),
        start_by_us=use.start_by_us if use is not None else 0,
    )


def _wants(estate: Estate) -> Iterator[Want]:
    """Of each model the next engine, if it would be of use and no place has room for it."""
    for model_id in sorted(estate.called):
        use = estate.next_use(model_id)
        if use is None or use.most(Rung.PARKED, exists=False) <= WORTH_MIN:
            continue
        lacking = _lacking(estate, use)
        if lacking:
            numbers = {"value": use.most(Rung.PARKED, exists=False), "replica": float(use.count)}
            yield Want(model_id=ModelId(model_id), why=lacking, numbers=numbers)


def _lacking(estate: Estate, use: Use) -> str:
    """Why no place is open to it; empty where one is and it would add too little there."""
    places = [Berth(use.spec, n, gpus, Rung.SHED) for n, gpus in estate.places[use.spec.id]]
    lacking = {estate.berths.lacking(b) for b in places if not estate.berths.stands(b)}
    if not places:
        return "no living node has GPUs for it"
    if not lacking:
        return "it stands on every GPU set already"
    return "" if "" in lacking else f"no place has {' or '.join(sorted(lacking))} left for it"
