"""The traces of the report, what is asked of each, and what is aimed at. Pure.

In: nothing. Out: `Case`s and targets. Never: reads a trace.
"""

from pathlib import Path
from typing import NamedTuple

AGAINST_SIMPLE = 0.90
"""Of the best simple baseline's pinball loss, on the traces that are named for it."""
AGAINST_LAST = 1.02
"""Of last value's, on every trace and horizon."""
SHORT_AGAINST_LAST = 1.0
COVERAGE_SLACK = 0.02
COVERAGE_BINS_MIN = 2_000
WORST_WEEK_Q90 = 0.80
PERIODIC = "10m,20m,60m,4h"
SHORT = "10s,30s,1m,2m,4m"


class Case(NamedTuple):
    title: str
    file: str
    """Below the folder of traces."""
    horizons: str
    score_from: str
    streams: str = ""
    busiest: int | None = None
    named: bool = False
    """One of those on which 0.90 of the best simple baseline is aimed at."""

    @property
    def short(self) -> bool:
        return self.horizons == SHORT

    @property
    def slug(self) -> str:
        words = "".join(c if c.isalnum() else " " for c in self.title.lower()).split()
        return "-".join(words)

    @property
    def path(self) -> Path:
        return Path(self.file)


_SERVEGEN = "servegen/clients_10min_{}.csv.gz"
_BURSTGPT = "burstgpt_hourly/burstgpt_hourly.csv"
_AZURE = "azure_llm_2023/AzureLLMInferenceTrace_{}.csv"

CASES = (
    Case("ServeGen m-large", _SERVEGEN.format("m-large"), PERIODIC, "8d", busiest=60, named=True),
    Case("ServeGen m-small", _SERVEGEN.format("m-small"), PERIODIC, "8d", named=True),
    Case("ServeGen models", "servegen/models_10min_14d.csv", PERIODIC, "8d", "m-large,m-small"),
    Case("BurstGPT conversation", _BURSTGPT, "60m,4h", "14d", "conversation", named=True),
    Case("BurstGPT api", _BURSTGPT, "60m,4h", "14d", "api"),
    Case("NYC taxi", "nab/nyc_taxi.csv", "30m,60m,4h", "8d", named=True),
    Case("NAB twitter", "nab/twitter_5min_wide.csv", PERIODIC, "8d"),
    Case("NAB ELB", "nab/elb_request_count_8c0756.csv", PERIODIC, "8d"),
    Case("Azure 2023 conv", _AZURE.format("conv"), SHORT, "20m", "requests"),
    Case("Azure 2023 code", _AZURE.format("code"), SHORT, "20m", "requests"),
    Case("Mooncake", "mooncake/conversation_trace.jsonl", SHORT, "20m", "requests"),
)
STAND_IN = Case("generated", "generated", PERIODIC, "8d")
"""Where no trace lies at hand."""
QUICK = ("NAB ELB", "Mooncake")
