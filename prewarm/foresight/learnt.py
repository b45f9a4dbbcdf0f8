"""What is known of the models before the first observation. Pure.

In: the history, or a scenario's past days, read by whoever starts. Out: `Learnt`. Never: reads it.
"""

from dataclasses import dataclass, field

import numpy as np

from prewarm.calendars import Calendar
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


def nothing_learnt(models: tuple[str, ...], calendar: Calendar) -> Learnt:
    """A start without any past; the first bin that is observed is bin 0."""
    return Learnt(panel=Panel(calendar=calendar, streams=models, values=np.empty((0, len(models)))))
