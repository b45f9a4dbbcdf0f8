"""What the gateway saw of each request, per model: outcomes, TTFT, ITL, waiting. Pure.

In: one `Record` when a request ends. Out: counts and percentiles of the recent past for status
pages. Never: asks the engine, estimates a token, keeps more than a bounded number of samples.
"""

from collections import Counter, deque
from enum import StrEnum

from placement.catalog import Frozen

SAMPLES_MAX = 2048


class OutcomeKind(StrEnum):
    """How a request ended; exactly one each."""

    __hash__ = str.__hash__  # Enum's own runs in Python, and every request is counted by it

    ANSWERED = "answered"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    CUT = "cut"


class Record(Frozen, frozen=True, kw_only=True):
    """One ended request. Spans in trace microseconds; 0 where it never came to that."""

    model_id: str
    outcome: OutcomeKind
    code: str = ""
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
        "cold_starts", "held", "itl_us", "offered", "outcomes", "output_tokens", "prompt_tokens",
        "refused", "ttft_us",
    )  # fmt: skip

    def __init__(self) -> None:
        self.offered = 0
        self.outcomes: Counter[OutcomeKind] = Counter()
        self.refused: Counter[str] = Counter()
        self.cold_starts: Counter[str] = Counter()
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.ttft_us: deque[int] = deque(maxlen=SAMPLES_MAX)
        self.itl_us: deque[int] = deque(maxlen=SAMPLES_MAX)
        self.held: deque[int] = deque(maxlen=SAMPLES_MAX)

    def add(self, record: Record) -> None:
        self.offered += not record.retry
        self.outcomes[record.outcome] += 1
        if record.outcome is OutcomeKind.REFUSED:
            self.refused[record.code] += 1
        if record.cold:
            self.cold_starts[record.rung or "unserved"] += 1
        if record.held_us:
            self.held.append(record.held_us)
        if record.ttft_us:
            self.ttft_us.append(record.ttft_us)
        if record.itl_us:
            self.itl_us.append(record.itl_us)
        self.prompt_tokens += record.prompt_tokens
        self.output_tokens += record.output_tokens


class Telemetry:
    """All models. Counts of models that left the catalog stay: their requests happened."""

    def __init__(self) -> None:
        self.models: dict[str, ModelTelemetry] = {}

    def add(self, record: Record) -> None:
        model = self.models.get(record.model_id)
        if model is None:
            model = self.models[record.model_id] = ModelTelemetry()
        model.add(record)


def percentile(samples: "deque[int] | list[int]", share: float) -> int | None:
    """Nearest-rank percentile; None of nothing."""
    if not samples:
        return None
    ranked = sorted(samples)
    return ranked[min(len(ranked) - 1, max(0, -(-int(share * 1000) * len(ranked) // 1000) - 1))]
