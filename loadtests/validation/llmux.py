"""llmux on one GPU: two models that share it, one awake, and who may switch when.

In: two engines, their sleep levels, a switching policy. Out: switches, seconds spent on them, the
useful share. Never: reads a clock, draws.

The profile is its `balanced` one: twenty rounds, each a request for A and 0.1 s later one for B,
ten tokens each; the next round begins when both are answered. A switch waits until the awake model
has been so for `min_active` (which llmux counts as switching), puts it to sleep, wakes the other.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from loadtests.validation import engines as e
from loadtests.validation.figures import Figure
from placement.catalog import ModelSpec
from placement.snapshot import Rung

GPU_TYPE = "L40S-48GB"
"""An L40 has its memory and bandwidth."""
ROUNDS = 20
MIN_ACTIVE_S = 5.0
OBSERVATION_MAX_S = 60.0
"""llmux takes a longer switch for a cold start and counts this."""
SOURCE = "llmux 0.3.1, reports/switching-efficiency.md and benchmark_results, 2026-02-06: L40"


class Tenant(NamedTuple):
    """One of the two models."""

    answer_s: float
    sleep_s: float
    wake_s: float

    @classmethod
    def of(cls, spec: ModelSpec, rests_at: Rung) -> "Tenant":
        """Its sleep level is where it rests; "Say hello." is fifteen tokens with its template."""
        answer_s = e.answer_s(spec, GPU_TYPE, 15, 10)
        return cls(answer_s, e.sleep_s(spec, rests_at), e.wake_s(spec, rests_at))


class Pending(NamedTuple):
    """A request for the model that sleeps."""

    now_s: float
    awake_since_s: float
    cost_s: float
    """What a switch in this direction is believed to take."""
    queue_depth: int


Policy = Callable[[Pending], float]
"""When the switch that it asks for may begin."""


def fifo(pending: Pending) -> float:
    return pending.now_s


def cost_aware(pending: Pending, coalesce_s: float = 2.0, amortization: float = 0.5) -> float:
    """Minimum tenure of one switch's cost, then a queue that is worth it, or a coalescing window.

    Its bound on staleness (15 s) is looked at when a request arrives, so it never fires here.
    """
    tenure_ends_s = pending.awake_since_s + pending.cost_s
    if pending.now_s < tenure_ends_s:
        return tenure_ends_s
    if pending.queue_depth >= max(math.ceil(amortization * pending.cost_s), 1):
        return pending.now_s
    return pending.now_s + coalesce_s


@dataclass
class Gpu:
    """The one GPU. `tenants` are A and B; A is awake at first."""

    tenants: tuple[Tenant, Tenant]
    policy: Policy
    believed_s: list[float]
    """Cost of switching to A, to B: moving averages of what was measured."""
    min_active_s: float = MIN_ACTIVE_S
    now_s: float = 0.0
    awake: int = 0
    awake_since_s: float = -60.0
    switching_s: list[float] = field(default_factory=list)

    def round(self) -> None:
        """A request for A, 0.1 s later one for B; ends when both are answered."""
        asked_s = (self.now_s, self.now_s + 0.1)
        awake, asleep = self.awake, 1 - self.awake
        begins_s = self._begins_s(asked_s[asleep])
        if asked_s[awake] <= begins_s:
            answered_s = asked_s[awake] + self.tenants[awake].answer_s
            self._switch(begins_s, answered_s)
        else:
            self._switch(begins_s, self.now_s)
            answered_s = self.now_s + self.tenants[asleep].answer_s
            self._switch(self._begins_s(max(asked_s[awake], self.now_s)), answered_s)
        self.now_s = max(answered_s, self.now_s + self.tenants[self.awake].answer_s)

    def _begins_s(self, asked_s: float) -> float:
        believed_s = self.believed_s[1 - self.awake]
        return self.policy(Pending(asked_s, self.awake_since_s, believed_s, queue_depth=1))

    def _switch(self, begins_s: float, drained_s: float) -> None:
        """To the other model; `drained_s` is when the awake one has answered all it had."""
        to = 1 - self.awake
        rested_s = max(begins_s, drained_s, self.awake_since_s + self.min_active_s)
        self.now_s = rested_s + self.tenants[self.awake].sleep_s + self.tenants[to].wake_s
        took_s = self.now_s - begins_s
        self.switching_s.append(took_s)
        self.believed_s[to] += 0.3 * (min(took_s, OBSERVATION_MAX_S) - self.believed_s[to])
        self.awake, self.awake_since_s = to, self.now_s

    @property
    def useful(self) -> float:
        """Share of the time in which it was not switching."""
        return 1 - sum(self.switching_s) / self.now_s


def tenants() -> tuple[Tenant, Tenant]:
    """gpt-oss-20b rests in host memory (level 1), gemma-12b gives its weights up (level 2)."""
    return Tenant.of(e.L40_GPT_OSS, Rung.PARKED), Tenant.of(e.L40_GEMMA, Rung.SHED)


def played(gpu: Gpu) -> Gpu:
    for _ in range(ROUNDS):
        gpu.round()
    return gpu


def warmed_up(pair: tuple[Tenant, Tenant]) -> list[float]:
    """What its warm-up leaves as beliefs: of A one measured switch, of B a cold start (73.7 s)."""
    a, b = pair
    return [max(MIN_ACTIVE_S, b.answer_s) + b.sleep_s + a.wake_s, OBSERVATION_MAX_S]


_OPEN = (
    "Rounds follow each other at once (the client was a shell script on another machine); beliefs "
    "start from one cold start of gemma, as its warm-up ran; PCIe of the node as in our constants."
)
_FIFO_MISS = (
    "Of a round of 18 s, 0.7 s is useful there and 0.4 s here: the answer of ten tokens. The rest "
    "of theirs is the client and the network, which we leave out."
)
_DISK_MISS = "gemma's weights came from a disk at about 3 GB/s there, from the page cache here."


def llmux_figures() -> Iterator[Figure]:
    pair = tenants()
    before = played(Gpu(pair, fifo, [0.0, 0.0]))
    after = played(Gpu(pair, cost_aware, warmed_up(pair)))
    for name, unit, published, ours, miss in (
        ("FIFO, balanced: useful share", "%", 3.7, 100 * before.useful, _FIFO_MISS),
        ("FIFO, balanced: switches", "", 37, float(len(before.switching_s)), ""),
        ("FIFO, balanced: whole test", "s", 364, before.now_s, _DISK_MISS),
        ("FIFO, balanced: a switch", "s", 9.47, _mean(before.switching_s), _DISK_MISS),
        ("minimum tenure, balanced: useful share", "%", 66.9, 100 * after.useful, ""),
        ("minimum tenure, balanced: switches", "", 20, float(len(after.switching_s)), ""),
        ("minimum tenure, balanced: whole test", "s", 356, after.now_s, _DISK_MISS),
        ("minimum tenure, balanced: a switch", "s", 5.9, _mean(after.switching_s), _DISK_MISS),
    ):
        yield Figure(
            name=f"llmux, {name}",
            unit=unit,
            published=published,
            ours=ours,
            source=SOURCE,
            grade="B",
            assumed=_OPEN,
            miss=miss,
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
