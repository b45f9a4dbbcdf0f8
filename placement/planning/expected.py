"""What one model may need soon: who waits with so many replicas, and what that costs. Pure.

In: what is asked now and what is expected (`outlook`). Out: requests that wait, probabilities.
Never: draws, knows a GPU.

**The reckoning.** Of the n requests that are here now, a share exp(-t/S) still is after t seconds;
as many new ones have come as a Poisson stream of the expected rate leaves in service. Bursts of
arrivals widen that by half of what they add to the variance of arrivals, for stays of differing
length spread them out (held against simulated queues). So the number that wants a slot after t is
nearly normal, and the mean of what exceeds the slots is the normal loss function of it (the
newsvendor's shortage).
"""

from dataclasses import dataclass
from math import erfc, exp, pi, sqrt

from placement.catalog import ModelSpec
from placement.planning.demand import ModelDemand
from placement.planning.outlook import ModelOutlook, Outlook

US = 1_000_000


@dataclass(frozen=True, slots=True)
class Expected:
    """One model, now."""

    spec: ModelSpec
    asked: int
    """Requests here now, held and running."""
    held: int
    waited_s: float
    """The oldest of those who are held."""
    rate_per_s: float
    dispersion: float
    service_s: float
    slots: int
    price: float
    """GPU-seconds that one request-second of waiting is worth."""

    def wanting(self, ahead_s: float) -> tuple[float, float]:
        """Mean and variance of the requests that want a slot then."""
        stay = exp(-ahead_s / self.service_s)
        fresh = self.rate_per_s * self.service_s * (1 - stay)
        variance = self.asked * stay * (1 - stay) + fresh * (1 + (self.dispersion - 1) / 2)
        return self.asked * stay + fresh, variance

    def waiting(self, replicas: int, ahead_s: float) -> float:
        """Requests expected to find no slot then, if so many replicas serve."""
        mean, variance = self.wanting(ahead_s)
        if replicas <= 0:
            return mean
        return _loss(mean - replicas * self.slots, sqrt(variance))

    def waiters(self, climb_s: float) -> float:
        """Requests that wait where one finds nothing serving: itself, and who comes meanwhile."""
        return max(1.0, self.held + self.rate_per_s * climb_s)

    def missed(self, serving: int, back_s: float) -> float:
        """What the lack of one of so many that serve costs until it is back: the waiting, at its
        price. Of the last one, if anybody comes, the first waits all that time."""
        if serving <= 1:
            comes = 1.0 - exp(-self.rate_per_s * back_s)
            return self.price * (comes * back_s + self.rate_per_s * back_s * back_s / 2)
        more = self.waiting(serving - 1, back_s) - self.waiting(serving, back_s)
        return self.price * more * back_s

    def waited(self, seconds: float) -> float:
        """What those who wait have waited, at its price, if the first did for so long."""
        return self.price * max(1.0, self.held) * seconds

    def chance(self, count: int, within_us: int) -> float:
        """That so many replicas are wanted at some time until then, with nobody knowing better: the
        first if anybody comes, a further one as often as the crowd is so large."""
        if count <= 1:
            return 1.0 - exp(-self.rate_per_s * within_us / 1e6) if not self.asked else 1.0
        mean = max(self.rate_per_s * self.service_s, float(self.asked))
        deviation = sqrt(max(mean * self.dispersion, 1e-12))
        over = (count - 1) * self.slots - mean
        return 0.5 * erfc(over / deviation / sqrt(2))


def expected_of(
    spec: ModelSpec, demand: ModelDemand | None, outlook: Outlook, price: float, now_us: int
) -> Expected:
    """Without an outlook of its own a model is expected to be asked as lately."""
    demand = demand or ModelDemand(model_id=spec.id)
    known = outlook.of(spec.id) or _as_lately(spec, demand)
    return Expected(
        spec=spec,
        asked=demand.asked,
        held=max(demand.held, int(demand.wanted)),
        waited_s=(now_us - demand.oldest_held_us) / US if demand.held else 0.0,
        rate_per_s=known.rate_per_s,
        dispersion=max(known.dispersion, 1.0),
        service_s=max(known.service_s, 1e-3),
        slots=max(min(known.slots, spec.max_num_seqs), 1),
        price=price * 2.0**spec.priority,
    )


def _as_lately(spec: ModelSpec, demand: ModelDemand) -> ModelOutlook:
    service_s = demand.in_flight / demand.rate_per_s if demand.rate_per_s else 1.0
    return ModelOutlook(
        model_id=spec.id,
        rate_per_s=demand.rate_per_s,
        service_s=min(max(service_s, 0.1), 600.0),
        slots=spec.max_num_seqs,
    )


def _loss(over: float, deviation: float) -> float:
    """E[(X + over)+] for a normal X of mean 0."""
    if deviation <= 0:
        return max(over, 0.0)
    z = over / deviation
    density = exp(-z * z / 2) / sqrt(2 * pi)
    return deviation * density + over * 0.5 * erfc(-z / sqrt(2))
