"""How many replicas of each model should serve now. Pure.

In: what models are expected to need, what a climb takes. Out: counts with the numbers behind them.
Never: places anything.

One more replica is worth its GPUs as long as the requests that would wait without it, once it could
be there, cost more than the GPUs do: price × waiting ≥ GPUs. The price is the operator's: how many
idle GPU-seconds one request-second of waiting is worth. Looking one climb ahead and no further is
enough, for whoever is not launched now can be launched at the next round. A replica that serves is
kept on weaker grounds than one is launched on, and while it would be wanted again before it is
empty.
"""

from dataclasses import dataclass

from placement.planning.expected import Expected

KEEP = 0.5
"""It stays while it is worth this share of its GPUs: what is launched is not soon drained."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of one model."""

    serve: int
    """Fewer than so many should not serve: it climbs."""
    keep: int
    """More than so many need not: they are drained."""
    climb_s: float
    """What a further one takes to be there."""
    numbers: dict[str, float]


def wanted(model: Expected, have: int, climb_s: float) -> Wanted:
    """`have` serve or will soon; a further one takes `climb_s` to be there."""
    least = _least(model)
    serve = _worth_their_gpus(model, max(have, least), climb_s)
    keep = serve
    if serve <= have:
        serve = least
        while keep > least and _worth_keeping(model, keep - 1, climb_s) < KEEP * model.spec.gpus:
            keep -= 1
    return Wanted(
        serve=min(serve, model.spec.max_replicas),
        keep=keep,
        climb_s=climb_s,
        numbers=_numbers(model, have, climb_s),
    )


def worth_from_none(model: Expected, climb_s: float) -> int:
    """So many would be worth their GPUs if none were there yet."""
    return _worth_their_gpus(model, _least(model), climb_s)


def _least(model: Expected) -> int:
    spec = model.spec
    return min(max(spec.min_replicas, 1 if model.asked else 0), spec.max_replicas)


def _worth_their_gpus(model: Expected, count: int, climb_s: float) -> int:
    """At least so many."""
    while count < model.spec.max_replicas and worth(model, count, climb_s) >= model.spec.gpus:
        count += 1
    return count


def _numbers(model: Expected, have: int, climb_s: float) -> dict[str, float]:
    return {
        "held": float(model.held),
        "asked": float(model.asked),
        "rate_per_s": model.rate_per_s,
        "climb_s": climb_s,
        "coming": float(have),
        "slots": float(model.slots),
        "waiting": model.waiting(have, climb_s),
        "price": model.price,
    }


def worth(model: Expected, replicas: int, climb_s: float) -> float:
    """GPUs that one more than so many replicas is worth, once it can be there."""
    more = model.waiting(replicas, climb_s) - model.waiting(replicas + 1, climb_s)
    return model.price * more


def _worth_keeping(model: Expected, replicas: int, climb_s: float) -> float:
    """As `worth`, also by the time that those which are drained now will have left."""
    soon = worth(model, replicas, climb_s)
    if replicas == 0:
        return soon
    return max(soon, worth(model, replicas, climb_s + model.service_s))
