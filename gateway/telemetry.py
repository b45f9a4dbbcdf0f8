"""What the gateway saw of each request, per model: outcomes, TTFT, ITL, waiting. Pure.

In: one `Record` when a request ends. Out: counts and percentiles of the recent past for status
pages. Never: asks the engine, estimates a token, keeps more than a bounded number of samples.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable
from enum import StrEnum

from placement.catalog import Frozen, Task

SAMPLES_MAX = 2048

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


OPERATIONS = {
    Task.CHAT: "chat",
    Task.COMPLETIONS: "text_completion",
    Task.EMBEDDINGS: "embeddings",
}
"""OpenTelemetry's `gen_ai.operation.name`."""


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

    def add(self, sample: int) -> None:
        self.counts[bisect_left(self.bounds, sample)] += 1
        self.total += sample
        self.latest.append(sample)


class Record(Frozen, frozen=True, kw_only=True):
    """One ended request. Spans in trace microseconds; 0 where it never came to that."""

    model_id: str
    outcome: OutcomeKind
    operation: str = "chat"
    """`gen_ai.operation.name`."""
    code: str = ""
    duration_us: int = 0
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

    def add(self, record: Record) -> None:
        self.offered += not record.retry
        self.outcomes[record.outcome] += 1
        if record.outcome is OutcomeKind.REFUSED:
            self.refused[record.code] += 1
        if record.cold:
            self.cold_starts[record.rung or "unserved"] += 1
        if record.held_us:
            self.held.add(record.held_us)
        if record.ttft_us:
            self.ttft.add(record.ttft_us)
        if record.itl_us:
            self.itl.add(record.itl_us)
        if record.prompt_tokens:
            self.prompt_tokens.add(record.prompt_tokens)
        if record.output_tokens:
            self.output_tokens.add(record.output_tokens)
        if record.duration_us:
            self._duration(record).add(record.duration_us)

    def _duration(self, record: Record) -> Histogram:
        key = (record.operation, record.code)
        found = self.durations.get(key)
        if found is None:
            found = self.durations[key] = Histogram(DURATION_BOUNDS_US)
        return found


class Telemetry:
    """All models. Counts of models that left the catalog stay: their requests happened."""

    def __init__(self) -> None:
        self.models: dict[str, ModelTelemetry] = {}

    def add(self, record: Record) -> None:
        model = self.models.get(record.model_id)
        if model is None:
            model = self.models[record.model_id] = ModelTelemetry()
        model.add(record)


def percentile(samples: Iterable[int], share: float) -> int | None:
    """Nearest-rank percentile; None of nothing."""
    ranked = sorted(samples)
    if not ranked:
        return None
    return ranked[min(len(ranked) - 1, max(0, -(-int(share * 1000) * len(ranked) // 1000) - 1))]
