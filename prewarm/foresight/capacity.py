"""How long each model's mean request runs, and how many one replica serves at once. Pure.

In: a catalog, rates and mean lengths. Out: seconds and slots, kept until they change enough to
matter. Never: looks at how long requests did take, which holds our own queues.
"""

import numpy as np

from placement.catalog import Catalog
from prewarm.series import Floats
from prewarm.traces.records import Ints
from prewarm.warm_service import (
    BATCH_LOAD,
    batch_within_ttft,
    full_batch,
    timing_in,
    warm_concurrency,
)

CHANGE = 0.1
"""A rate or a length that moved by less, as a share, leaves the figures as they are."""
_RATE_MIN = 0.1


class Capacity:
    """Of the models of one catalog, in the order that is asked for. Mutated by `look`."""

    def __init__(self, catalog: Catalog, models: tuple[str, ...]) -> None:
        self._timed = [timing_in(catalog, model) for model in models]
        self.service_s: Floats = np.ones(len(models))
        self.slots: Ints = np.ones(len(models), np.int64)
        self._looked_at: Floats = np.zeros((3, len(models)))

    def look(self, rate_per_s: Floats, prompt: Floats, output: Floats) -> None:
        now = np.stack((np.maximum(rate_per_s, _RATE_MIN), prompt, output))
        changed = (np.abs(now - self._looked_at) > CHANGE * self._looked_at).any(axis=0)
        for place in np.flatnonzero(changed).tolist():
            self._looked_at[:, place] = now[:, place]
            self._reckon(place, *now[:, place, None])

    def _reckon(self, place: int, rate_per_s: Floats, prompt: Floats, output: Floats) -> None:
        timed = self._timed[place]
        if timed is None:
            return
        spec, timing = timed
        # With fixed figures no request slows another: a replica is full when its slots are.
        load = BATCH_LOAD if spec.service is None else 1.0
        batch = full_batch(spec, timing, prompt + output / 2, load)
        batch = np.minimum(batch, batch_within_ttft(spec, timing, prompt, output))
        self.slots[place] = max(int(batch[0]), 1)
        warm = warm_concurrency(spec, timing, rate_per_s, prompt, output)
        self.service_s[place] = max(float(warm.service_s[0]), 1e-3)
