"""The largest number of requests at once in a window, from its mean. Pure.

In: mean concurrency, seconds of service, arrivals per second. Out: peaks. Never: draws; takes
arrivals for Poisson over more than a minute, which measured traffic is far from.

**The reckoning.** With ample replicas the number in service is that of an M/G/infinity queue: at a
steady rate it is Poisson. The peak is the median of the largest of some independent looks at it,
by Cornish and Fisher's expansion, since counts are skewed. From minute to minute the rate itself
changes: on Azure's traces the counts of a minute have `MINUTE_DISPERSION` times the variance of a
Poisson. So of a longer window first the busiest minute is taken, then the peak within that.
"""

import numpy as np

from prewarm.series import Floats

STEADY_S = 60.0
"""So long a rate is taken as steady."""
MINUTE_DISPERSION = 12.0
"""Variance over mean of arrivals in a minute: 11 to 13 on Azure 2023."""
LOOKS_PER_SERVICE = 4.0
"""Somebody who watches all the time sees more than one number while a request runs: from
simulated queues, whose peaks this meets within a few percent from half a request to a hundred."""


def peak_within(mean: Floats, service_s: Floats, window_s: float) -> Floats:
    """In a window of steady rate. Whole numbers; 0 where the mean is, NaN where it is."""
    z = of_largest(LOOKS_PER_SERVICE * window_s / np.maximum(service_s, 1e-3))
    peak = np.ceil(mean + z * np.sqrt(mean) + (z * z - 1) / 6 - 0.5)
    return np.where(mean > 0, np.maximum(peak, np.maximum(np.ceil(mean), 1)), mean)


def busiest_minute(mean: Floats, rate_per_s: Floats, service_s: Floats, window_s: float) -> Floats:
    """The mean concurrency of the busiest minute in a window of which only the mean is known.

    What is left in it of the arrivals' changes is less, the longer a request stays.
    """
    minutes = max(window_s / STEADY_S, 1.0)
    if minutes == 1:
        return mean
    spread = service_s * np.sqrt(rate_per_s * (MINUTE_DISPERSION - 1) / STEADY_S)
    left = np.sqrt(1 / (1 + service_s / STEADY_S))
    z = of_largest(np.asarray(minutes))
    found: Floats = mean + z * spread * left
    return found


def of_largest(looks: Floats, level: Floats | float = 0.5) -> Floats:
    """The standard normal quantile that the largest of so many draws does not exceed, with the
    probability `level`: by default its median. 0 at least.

    Abramowitz and Stegun 26.2.23, off by less than 4.5e-4.
    """
    tail = -np.expm1(np.log(level) / np.maximum(looks, 1))
    t = np.sqrt(-2 * np.log(tail))
    over = 2.515517 + t * (0.802853 + t * 0.010328)
    under = 1 + t * (1.432788 + t * (0.189269 + t * 0.001308))
    found: Floats = np.maximum(t - over / under, 0)
    return found
