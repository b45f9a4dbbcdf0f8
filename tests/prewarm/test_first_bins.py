"""The first bins of a stream, before anything that was forecast far ahead has met its bin."""

import numpy as np

from prewarm.calendars import US, Calendar
from prewarm.forecast import LEVELS, Setting
from prewarm.scoring import at_level
from prewarm.selection.selector import Selector

HORIZONS = (1, 12, 48)


def test_far_horizons_of_a_young_stream_are_not_dragged_towards_zero() -> None:
    setting = Setting(
        calendar=Calendar(start_us=0, width_us=300 * US), streams=("chat",), horizons=HORIZONS
    )
    ours = Selector(setting, np.random.default_rng(0))
    for at in range(60):
        ours.update(np.array([100.0 + at % 3]))
        median = at_level(ours.predict(), LEVELS, 0.5)[0]
        # All that was ever seen is 100, 101 or 102.
        assert ((median > 98) & (median < 104)).all(), f"bin {at}: {median}"
