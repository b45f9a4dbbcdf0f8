"""What the gateway saw of each request, per model: outcomes, TTFT, ITL, waiting. Pure.

In: one `Record` when a request ends. Out: counts and percentiles of the recent past for status
pages. Never: asks the engine, estimates a token, keeps more than a bounded number of samples.
"""

from collections import Counter, deque
from collections.abc import Iterable
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from placement.catalog import Frozen

SAMPLES_MAX = 2048
SETTLE_EVERY = 1024
Ints = NDArray[np.int64]

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
    """Counts by upper bound, the last one without bound; the latest samples for percentiles.

    `add` only keeps the sample: samples are sorted in by the thousand, or when somebody looks.
    """

    __slots__ = ("_bounds", "_counts", "_fresh", "_latest", "_total", "add")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self._bounds = np.array(bounds)
        self._counts: Ints = np.zeros(len(bounds) + 1, np.int64)
        self._total = 0
        self._latest: deque[int] = deque(maxlen=SAMPLES_MAX)
        self._fresh: list[int] = []
        self.add = self._fresh.append

    @property
    def bounds(self) -> list[int]:
        bounds: list[int] = self._bounds.tolist()
        return bounds

    @property
    def counts(self) -> list[int]:
        self.settle()
        counts: list[int] = self._counts.tolist()
        return counts

    @property
    def total(self) -> int:
        self.settle()
        return self._total

    @property
    def latest(self) -> deque[int]:
        self.settle()
        return self._latest

    def settle(self) -> None:
        """Sort in what was added since."""
        if self._fresh:
            places = np.searchsorted(self._bounds, self._fresh)
            self._counts += np.bincount(places, minlength=len(self._counts))
            self._total += sum(self._fresh)
            self._latest.extend(self._fresh)
            self._fresh.clear()


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
        "_added", "cold_starts", "durations", "held", "itl", "offered", "outcomes",
        "output_tokens", "prompt_tokens", "refused", "ttft",
    )  # fmt: skip

    def __init__(self) -> None:
        self._added = 0
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
        self._added += 1
        if not self._added % SETTLE_EVERY:
            self._settle()
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
            durations = self.durations.get((record.operation, record.code))
            (durations or self._new_durations(record)).add(record.duration_us)

    def _settle(self) -> None:
        fixed = (self.ttft, self.itl, self.held, self.prompt_tokens, self.output_tokens)
        for histogram in (*fixed, *self.durations.values()):
            histogram.settle()

    def _new_durations(self, record: Record) -> Histogram:
        made = self.durations[record.operation, record.code] = Histogram(DURATION_BOUNDS_US)
        return made


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
