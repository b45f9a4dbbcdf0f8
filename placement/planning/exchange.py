"""Engines of a residency plan that go for the sake of one that adds more. Pure.

In: an `Estate` to which nothing more can be added. Out: the same, worth more or as it was. Never:
ends one at work, or more than one exchange without a gain.
"""

from placement.planning.auction import WORTH_MIN
from placement.planning.berths import Berth
from placement.planning.estate import Engine, Estate
from placement.planning.uses import Use
from placement.snapshot import Rung

GAIN_MIN = 1.01
"""What comes in adds so many times what is lost: the same two do not change places again."""


def exchange(estate: Estate) -> bool:
    """One exchange, for the model whose next engine would be worth most; whether there was one."""
    wanting = [u for m in estate.called if (u := estate.next_use(m)) is not None]
    worth = {u.key: u.most(Rung.PARKED, exists=False) for u in wanting}
    for use in sorted(wanting, key=lambda u: (-worth[u.key], u.key)):
        if worth[use.key] > WORTH_MIN and _exchanged(estate, use):
            return True
    return False


def _exchanged(estate: Estate, use: Use) -> bool:
    for node_id, gpus in estate.places[use.spec.id]:
        for rests in (Rung.PARKED, Rung.SHED):
            berth = Berth(use.spec, node_id, gpus, rests)
            if not estate.berths.stands(berth) and _made_room(estate, use, berth):
                return True
    return False


def _made_room(estate: Estate, use: Use, berth: Berth) -> bool:
    """The cheapest go, until it has room; all come back if that costs as much as it adds."""
    gone: list[Engine] = []
    loss, most = 0.0, use.most(berth.rests, exists=False)
    while lacking := estate.berths.lacking(berth):
        gpus = berth.gpu_ids if lacking == "GPU memory" else ()
        cheapest = _cheapest(estate, use, berth.node_id, gpus)
        if cheapest is None:
            break
        loss += max(estate.loss(cheapest), 0.0)
        if GAIN_MIN * loss >= most:
            break
        estate.remove(cheapest)
        gone.append(cheapest)
    if gone and not estate.berths.lacking(berth):
        adds = estate.more(use, berth)
        if adds > GAIN_MIN * loss + WORTH_MIN:
            estate.add(Engine(berth=berth, count=use.count, use=use, adds=adds - loss))
            return True
    for engine in reversed(gone):
        estate.add(engine)
    return False


def _cheapest(estate: Estate, use: Use, node_id: str, gpus: tuple[int, ...]) -> Engine | None:
    others = [e for e in estate.removable(node_id, gpus) if e.berth.spec.id != use.spec.id]
    return min(others, key=lambda e: (estate.loss(e), e.berth.spec.id), default=None)
