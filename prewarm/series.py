"""What was asked, as numbers on a time axis: the food of every forecaster. Pure.

In: values per bin and stream, from the history or a file. Out: a `Panel`, in which a hole is NaN
and nothing is negative or infinite. Never: fills a hole, takes one for a quiet time.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from prewarm.calendars import Calendar

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Singles = NDArray[np.float32]


class Target(StrEnum):
    """What is forecast of a model; each is a stream of its own."""

    REQUESTS = "requests"
    """Offered arrivals in a bin: retries deduplicated, refused ones included."""
    PROMPT_TOKENS = "prompt_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CONCURRENCY_MEAN = "concurrency_mean"
    """Arrivals x warm service time: what would run if nobody ever waited."""
    CONCURRENCY_PEAK = "concurrency_peak"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """Streams over the same bins. `values` is bins x streams; NaN is a hole."""

    calendar: Calendar
    streams: tuple[str, ...]
    values: Floats
    whole: bool = True
    """Counts: whole numbers, scored as such. False for concurrency, which is a mean."""

    def __len__(self) -> int:
        return len(self.values)
