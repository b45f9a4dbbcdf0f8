"""In which futures how many replicas are needed, as bits. Pure.

In: peaks of concurrency by path and model, slots. Out: the masks of `ModelOutlook.need`. Never:
needs three replicas in a future in which it does not need two.
"""

import numpy as np
from numpy.typing import NDArray

from placement.catalog import Catalog
from prewarm.series import Floats
from prewarm.traces.records import Ints

Masks = tuple[bytes, ...]


def most_replicas(catalog: Catalog, models: tuple[str, ...]) -> Ints:
    """That each may have; one of those that the catalog does not know."""
    specs = [catalog.model(model) for model in models]
    return np.array([spec.max_replicas if spec else 1 for spec in specs], np.int64)


def needed(peaks: Floats, slots: Ints, most: Ints) -> Ints:
    """Replicas; no model has more than `most`. Shape paths x models."""
    found: Ints = np.minimum(np.ceil(peaks / slots).astype(np.int64), most)
    return found


def masks(counts: Ints) -> list[Masks]:
    """For each model, for k = 1, 2, ...: the paths in which at least k are needed, one bit a path,
    the first path in the highest bit."""
    of_model, most = counts.T, counts.max(axis=0)
    found: list[list[bytes]] = [[] for _ in most]
    for k in range(1, int(most.max(initial=0)) + 1):
        packed: NDArray[np.uint8] = np.packbits(k <= of_model, axis=1)
        for place in np.flatnonzero(most >= k).tolist():
            found[place].append(packed[place].tobytes())
    return [tuple(one) for one in found]


def pieces(start_us: int, width_us: int, now_us: int, within_us: int) -> list[tuple[int, int]]:
    """The parts of bins that lie within a time from now on: which bin, counted from the one that
    begins at `start_us` and holds now, and how much of it."""
    from_us = min(max(now_us, start_us), start_us + width_us)
    until_us = from_us + within_us
    found = []
    for at in range(-(-(until_us - start_us) // width_us)):
        begin_us = max(start_us + at * width_us, from_us)
        end_us = min(start_us + (at + 1) * width_us, until_us)
        if end_us > begin_us:
            found.append((at, end_us - begin_us))
    return found
