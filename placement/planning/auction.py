"""Engines added to a residency plan one by one, whoever adds most per byte first. Pure.

In: an `Estate`. Out: the same with more engines. Never: ends one (`exchange` does).

What is scarce is host memory where not all that are called for could be parked, else the residue on
GPUs. Where host memory is scarce an engine may come in asleep without its weights, which takes a
process and no more, and have them on the host later, when that adds most per byte of all.
"""

import heapq
from dataclasses import dataclass

from placement.planning.berths import Berth
from placement.planning.estate import Engine, Estate
from placement.planning.uses import Use, each
from placement.snapshot import Rung

SIMILAR = 0.98
"""A place that adds this share of the best is as good: then it is better to stand apart."""
WORTH_MIN = 1e-6
"""Request-seconds below which nothing is started."""


@dataclass(slots=True)
class Bid:
    """One more engine of a model at a place, or (`raises`) the weights of one that comes anyway."""

    use: Use
    berth: Berth
    adds: float
    """At most."""
    versions: tuple[int, ...] = ()
    """When it was last looked at."""
    raises: Engine | None = None


class Auction:
    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._heap: list[tuple[float, str, str, tuple[int, ...], int, Bid]] = []
        self._of_model: dict[str, list[Bid]] = {}
        self._made = 0
        self._host_is_scarce = _host_is_scarce(estate)

    def run(self) -> None:
        """Until nobody who has room adds anything."""
        self._heap.clear()
        for model_id in self._estate.called:
            self._offer(model_id)
        while self._heap:
            self._next(heapq.heappop(self._heap)[-1])

    def _offer(self, model_id: str) -> None:
        """The model's next engine, at every place."""
        use = self._estate.next_use(model_id)
        self._of_model[model_id] = []
        if use is None:
            return
        for node_id, gpus in self._estate.places[model_id]:
            berth = Berth(use.spec, node_id, gpus, self._first_rung(use))
            adds = use.most(berth.rests, exists=False)
            if adds > WORTH_MIN and not self._estate.berths.stands(berth):
                self._push(Bid(use, berth, adds))

    def _first_rung(self, use: Use) -> Rung:
        """Parked, unless host memory is scarce and weights on the host add less per byte of it than
        the engine itself."""
        if not self._host_is_scarce:
            return Rung.PARKED
        shed = use.most(Rung.SHED, exists=False)
        more = use.most(Rung.PARKED, exists=False) - shed
        (node_id, gpus), *_ = self._estate.places[use.spec.id]
        least = Berth(use.spec, node_id, gpus, Rung.SHED).host_bytes
        most = Berth(use.spec, node_id, gpus, Rung.PARKED).host_bytes
        return Rung.SHED if shed * (most - least) >= more * least else Rung.PARKED

    def _push(self, bid: Bid) -> None:
        self._made += 1
        berth = bid.berth
        score = bid.adds / self._scarce_bytes(bid)
        entry = (-score, berth.spec.id, berth.node_id, berth.gpu_ids, self._made, bid)
        heapq.heappush(self._heap, entry)
        if bid.raises is None and not bid.versions:
            self._of_model[berth.spec.id].append(bid)

    def _scarce_bytes(self, bid: Bid) -> int:
        if bid.raises is not None:
            return max(bid.berth.host_bytes - bid.raises.berth.host_bytes, 1)
        if self._host_is_scarce:
            return max(bid.berth.host_bytes, 1)
        return max(bid.berth.residue_bytes * len(bid.berth.gpu_ids), 1)

    def _next(self, bid: Bid) -> None:
        if bid.raises is not None:
            self._next_raise(bid, bid.raises)
        elif bid.use is self._estate.next_use(bid.use.spec.id):
            lacking = self._estate.berths.lacking(bid.berth)
            if lacking == "host memory" and bid.berth.rests is Rung.PARKED:
                self._without_weights(bid)
            elif not lacking and self._is_fresh(bid):
                self._accept(bid)

    def _without_weights(self, bid: Bid) -> None:
        berth = Berth(bid.berth.spec, bid.berth.node_id, bid.berth.gpu_ids, Rung.SHED)
        adds = bid.use.most(Rung.SHED, exists=False)
        if adds > WORTH_MIN:
            self._push(Bid(bid.use, berth, adds))

    def _is_fresh(self, bid: Bid) -> bool:
        """Whether it adds so much still; if not it waits for its turn again."""
        versions = self._estate.versions(bid.berth)
        if bid.versions == versions:
            return True
        before = bid.adds
        bid.adds, bid.versions = self._estate.more(bid.use, bid.berth), versions
        if bid.adds >= before:
            return True
        if bid.adds > WORTH_MIN:
            self._push(bid)
        return False

    def _accept(self, best: Bid) -> None:
        chosen, model_id = self._apart(best), best.use.spec.id
        engine = Engine(
            berth=chosen.berth, count=chosen.use.count, use=chosen.use, adds=chosen.adds
        )
        self._estate.add(engine)
        if self._host_is_scarce and engine.berth.rests is Rung.SHED:
            self._offer_weights(engine)
        self._offer(model_id)

    def _apart(self, best: Bid) -> Bid:
        """Of places as good as the best the one that is least crowded."""
        estate = self._estate
        others = [b for b in self._of_model[best.use.spec.id] if b.adds >= SIMILAR * best.adds]
        for bid in sorted(others, key=lambda b: estate.crowding(b.berth)):
            if bid.berth.rests is best.berth.rests and not estate.berths.lacking(bid.berth):
                versions = estate.versions(bid.berth)
                if bid.versions != versions:
                    bid.adds, bid.versions = estate.more(bid.use, bid.berth), versions
                if bid.adds >= SIMILAR * best.adds:
                    return bid
        return best

    # --- weights on the host

    def _offer_weights(self, engine: Engine) -> None:
        assert engine.use is not None
        berth = Berth(engine.berth.spec, engine.berth.node_id, engine.berth.gpu_ids, Rung.PARKED)
        use = engine.use
        adds = use.most(Rung.PARKED, exists=False) - use.most(Rung.SHED, exists=False)
        if adds > WORTH_MIN:
            self._push(Bid(use, berth, adds, raises=engine))

    def _next_raise(self, bid: Bid, engine: Engine) -> None:
        estate = self._estate
        more = bid.berth.host_bytes - engine.berth.host_bytes
        if engine not in estate.engines or more > estate.berths.host_free(bid.berth.node_id):
            return
        versions = estate.versions(bid.berth)
        if bid.versions == versions:
            estate.raise_up(engine, bid.adds)
            return
        bid.adds, bid.versions = estate.raised(engine), versions
        if bid.adds > WORTH_MIN:
            self._push(bid)


def _host_is_scarce(estate: Estate) -> bool:
    """Not all engines that are called for could be parked."""
    free = sum(max(estate.berths.host_free(n), 0) for n in estate.draft.nodes)
    wanted = 0
    for use in each(estate.called):
        if places := estate.places[use.spec.id]:
            wanted += Berth(use.spec, *places[0], Rung.PARKED).host_bytes
    return wanted > free
