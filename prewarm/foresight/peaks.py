"""How many requests run at once at the worst moment of a window, by chance. Pure.

In: rates, seconds of service, how arrivals clump, how many run now, a rank. Out: whole numbers.
Never: draws: the rank says which of the peaks that may come this one is.

With ample replicas so many run as came within one service time. Clumped arrivals, of `dispersion`
times a Poisson's variance, make their number vary more, by as much of a clump as still meets: for
exponential lengths half. The quantile is Cornish and Fisher's, with the skewness of a negative
binomial, as in `occupancy`. The window begins with what runs now, which ends little
by little. That nobody comes at all has its own probability, since for rare models it decides.
"""

import numpy as np

from prewarm.occupancy import LOOKS_PER_SERVICE, of_largest
from prewarm.series import Floats

MEETS = 0.5
"""The share of a clump's excess that is left in the number that runs: the integral of the square of
the lengths' survival function over their mean. 1 if all were equally long."""


def peak_at(
    ranks: Floats,
    rate_per_s: Floats,
    service_s: Floats,
    dispersion: Floats,
    window_s: float,
    running: Floats | float = 0.0,
) -> Floats:
    """Shapes: ranks and rates paths x models, the others models."""
    left = np.exp(-window_s / service_s)
    new = rate_per_s * service_s * (1 - left)
    z = of_largest(LOOKS_PER_SERVICE * window_s / service_s, ranks)
    spread = 1 + MEETS * (dispersion - 1)
    skewed = (2 * spread - 1) * (z * z - 1) / 6
    peak = np.ceil(running * left + new + z * np.sqrt(spread * new) + skewed - 0.5)
    peak = np.maximum(peak, 1.0)
    return np.maximum(
        np.where(ranks <= silence(rate_per_s * window_s, dispersion), 0, peak), running
    )


def silence(arrivals: Floats, dispersion: Floats) -> Floats:
    """The probability that none comes where so many are expected: a negative binomial's."""
    beyond = np.maximum(dispersion - 1, 1e-6)
    found: Floats = np.exp(-arrivals * np.log1p(beyond) / beyond)
    return found
