"""How many GPUs all models need together at one moment to come, in each future. Pure.

In: rates by path, bin and model. Out: `Outlook.gpus`. Never: draws.

Nodes are shared by models that come and go: what each needs at most until then comes at different
moments, and its sum is far more than is ever in use. So this looks at a short while: what a model
needs within it, it needs beside the others.
"""

import numpy as np

from placement.catalog import Catalog
from prewarm.foresight.needs import needed
from prewarm.foresight.peaks import peak_at
from prewarm.series import Floats
from prewarm.traces.records import Ints

WHILE_S = 10.0


def gpus_of(catalog: Catalog, models: tuple[str, ...]) -> Ints:
    """That one replica of each holds."""
    specs = [catalog.model(model) for model in models]
    return np.array([s.gpus if s and s.on_gpu else 0 for s in specs], np.int64)


def gpus_at_once(
    ranks: Floats,
    rate_per_s: Floats,
    service_s: Floats,
    dispersion: Floats,
    slots: Ints,
    most: Ints,
    gpus: Ints,
) -> tuple[int, ...]:
    """By path. Shapes: ranks and rates paths x models, the others models."""
    peaks = peak_at(ranks, rate_per_s, service_s, dispersion, WHILE_S)
    found: Ints = needed(peaks, slots, most) @ gpus
    return tuple(found.tolist())


def bin_at(start_us: int, width_us: int, at_us: int) -> int:
    """Counted from the bin that begins at `start_us`."""
    return max(at_us - start_us, 0) // width_us
