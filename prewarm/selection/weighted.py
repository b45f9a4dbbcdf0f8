"""Quantiles of weighted samples, for many rows at once. Pure.

In: values that are not negative, and weights. Out: for each level the smallest value that so much
of the weight does not exceed. Never: interpolates, for between "nothing" and a burst lies nothing.
"""

import numpy as np

from prewarm.series import Floats, Singles

_WEIGHT_MAX = 2.0**32 - 1


def weighted_quantiles(values: Singles | Floats, weights: Floats, levels: Floats) -> Floats:
    """Samples lie along the last axis; the result has levels there. A row without weight gives 0.

    Value and weight travel through one sort in one integer: floats that are not negative are
    ordered as their bits are. It takes a third of the time of an argsort and two gathers.
    """
    count = values.shape[-1]
    rows = values.size // count
    largest = weights.max(axis=-1, keepdims=True)
    scaled = weights * (_WEIGHT_MAX / np.where(largest > 0, largest, 1.0))
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    packed = (bits.astype(np.uint64) << np.uint64(32)) | scaled.astype(np.uint64)
    packed = packed.reshape(rows, count)
    packed.sort(axis=-1)
    mass = np.cumsum((packed & np.uint64(0xFFFFFFFF)).astype(np.float64), axis=-1)
    total = mass[:, -1:].copy()
    mass /= np.where(total > 0, total, 1.0)
    # One search for all rows: row r's masses lie between r and r + 1.
    offset = np.arange(rows)[:, None]
    place = np.searchsorted((mass + offset).ravel(), (levels + offset).ravel())
    place = np.minimum(place.reshape(rows, len(levels)), (offset + 1) * count - 1)
    found = (packed.ravel()[place] >> np.uint64(32)).astype(np.uint32).view(np.float32)
    known: Floats = np.where(total > 0, found.astype(np.float64), 0.0)
    return known.reshape(*values.shape[:-1], len(levels))
