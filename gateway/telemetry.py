"""What the gateway saw of each request, per model: outcomes, TTFT, ITL, waiting. Pure.

In: one `Record` when a request ends. Out: counts and percentiles of the recent past for status
pages. Never: asks the engine, estimates a token, keeps more than a bounded number of samples.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from enum import StrEnum

from placement.catalog import Frozen

SAMPLES_MAX = 2048
COUNT_EVERY = 1024

# Buckets that OpenTelemetry advises for the gen_ai.* histograms, spans in microseconds; those of
# TTFT go on up to the longest deadlines.
MS = 1000
TTFT_BOUNDS_US = tuple(
    ms * MS
    for ms in (
        *(1, 5, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000),
        *(20_000, 40_000, 80_000, 160_000),
    )
)
ITL_BOUNDS_US = tuple(
    ms * MS for ms in (10, 25, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 2500)
)
DURATION_BOUNDS_US = tuple(10 * MS * 2**k for k in range(14))
TOKEN_BOUNDS = tuple(4**k for k in range(14))


class OutcomeKind(StrEnum):
    """How a request ended; exactly one each."""

    __hash__ = str.__hash__  # Enum's own runs in Python, and every request is counted by it

    ANSWERED = "answered"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    CUT = "cut"


class Histogram:
    """Counts by upper bound, the last one without bound; the latest samples for percentiles."""

    __slots__ = ("bounds", "counts", "latest", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0
        self.latest: deque[int] = deque(maxlen=SAMPLES_MAX)

    def add(self, samples: Sequence[int]) -> None:
        for sample in samples:
            self.counts[bisect_left(self.bounds, sample)] += 1
        self.total += sum(samples)
        self.latest.extend(samples)


class Record(Frozen, frozen=True, kw_only=True):
    """One ended request. Spans in trace microseconds; 0 where it never came to that."""

    model_id: str
    outcome: OutcomeKind
    operation: str = "chat"
    """`gen_ai.operation.name`."""
    code: str = ""
    duration_us: int = 0
    demand: bool = True
    """It reached its model's queue; what was denied before is nobody's demand."""
    retry: bool = False
    cold: bool = False
    rung: str = ""
    held_us: int = 0
    ttft_us: int = 0
    itl_us: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


class ModelTelemetry:
    """Counts since start and the latest samples of one model."""

    __slots__ = (
        "cold_starts", "durations", "held", "itl", "offered", "outcomes", "output_tokens",
        "prompt_tokens", "refused", "ttft",
    )  # fmt: skip

    def __init__(self) -> None:
        self.offered = 0
        self.outcomes: Counter[OutcomeKind] = Counter()
        self.refused: Counter[str] = Counter()
        self.cold_starts: Counter[str] = Counter()
        self.prompt_tokens = Histogram(TOKEN_BOUNDS)
        self.output_tokens = Histogram(TOKEN_BOUNDS)
        self.durations: dict[tuple[str, str], Histogram] = {}
        """By operation and error code; the code of an answered request is empty."""
        self.ttft = Histogram(TTFT_BOUNDS_US)
        self.itl = Histogram(ITL_BOUNDS_US)
        self.held = Histogram(TTFT_BOUNDS_US)

    def add(self, records: Sequence[Record]) -> None:
        refused = OutcomeKind.REFUSED
        self.offered += sum(r.demand and not r.retry for r in records)
        self.outcomes.update(r.outcome for r in records)
        self.refused.update(r.code for r in records if r.outcome is refused)
        self.cold_starts.update(r.rung or "unserved" for r in records if r.cold)
        self.held.add([r.held_us for r in records if r.held_us])
        self.ttft.add([r.ttft_us for r in records if r.ttft_us])
        self.itl.add([r.itl_us for r in records if r.itl_us])
        self.prompt_tokens.add([r.prompt_tokens for r in records if r.prompt_tokens])
        self.output_tokens.add([r.output_tokens for r in records if r.output_tokens])
        spans: dict[tuple[str, str], list[int]] = {}
        for record in records:
            if record.duration_us:
                spans.setdefault((record.operation, record.code), []).append(record.duration_us)
        for key, spans_us in spans.items():
            if key not in self.durations:
                self.durations[key] = Histogram(DURATION_BOUNDS_US)
            self.durations[key].add(spans_us)


class Telemetry:
    """All models. Counts of models that left the catalog stay: their requests happened.

    A request only leaves its record; records are counted by the thousand, or when somebody looks.
    """

    def __init__(self) -> None:
        self._models: dict[str, ModelTelemetry] = {}
        self._fresh: list[Record] = []

    def add(self, record: Record) -> None:
        self._fresh.append(record)
        if len(self._fresh) >= COUNT_EVERY:
            self._count()

    @property
    def models(self) -> dict[str, ModelTelemetry]:
        self._count()
        return self._models

    def _count(self) -> None:
        by_model: dict[str, list[Record]] = {}
        for record in self._fresh:
            by_model.setdefault(record.model_id, []).append(record)
        self._fresh.clear()
        for model_id, records in by_model.items():
            self._models.setdefault(model_id, ModelTelemetry()).add(records)


def percentile(samples: Iterable[int], share: float) -> int | None:
    """Nearest-rank percentile; None of nothing."""
    ranked = sorted(samples)
    if not ranked:
        return None
    return ranked[min(len(ranked) - 1, max(0, -(-int(share * 1000) * len(ranked) // 1000) - 1))]
