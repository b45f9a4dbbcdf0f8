"""What is known of the models before the first observation. Pure.

In: the history, or a scenario's past days, read by whoever starts. Out: `Learnt`. Never: reads it.
"""

from dataclasses import dataclass, field

from prewarm.demand_series import PRIOR_OUTPUT, PRIOR_PROMPT
from prewarm.series import Panel


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """A model's mean request, and how its arrivals clump."""

    prompt_tokens: float = PRIOR_PROMPT
    output_tokens: float = PRIOR_OUTPUT
    dispersion: float = 2.0
    """Variance over mean of the arrivals in some seconds."""


UNKNOWN = Usual()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learnt:
    """`panel` counts offered arrivals; its bins end where those that are observed begin."""

    panel: Panel
    usual: dict[str, Usual] = field(default_factory=dict)
