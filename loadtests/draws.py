"""Named, seeded streams of chance, and the shapes that the loads draw from them. Seeded.

In: a seed and a name, then sizes and parameters. Out: numpy arrays.
Never: shares a stream between two purposes (a new draw here must not shift the draws over there).
"""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Requests come in clumps: minutes of Azure's conversations vary 11 to 13 times as much as Poisson.
ARRIVALS_CV = 2.0


def stream(seed: int, name: str) -> np.random.Generator:
    """One stream per purpose, the same on every machine and under every hash seed."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def renewal_gaps(rng: np.random.Generator, count: int, cv: float = ARRIVALS_CV) -> Floats:
    """Gaps of a Gamma renewal process: mean 1, coefficient of variation `cv`."""
    shape = 1 / cv**2
    return rng.gamma(shape, 1 / shape, count)


def renewal_within(rng: np.random.Generator, count: int, cv: float = ARRIVALS_CV) -> Floats:
    """`count` ascending moments in [0, 1) of a Gamma renewal process closed into a ring.

    The ring keeps the gaps' law and has no edges, so clumps do not gather where bins meet.
    """
    ends = np.cumsum(renewal_gaps(rng, count, cv))
    if not count or ends[-1] <= 0:
        return np.sort(rng.random(count))
    moments: Floats = np.sort((ends / ends[-1] + rng.random()) % 1.0)
    return moments


class Lognormal(NamedTuple):
    """Token counts: `mean` before the cap, `sigma` of the logarithm."""

    mean: float
    sigma: float
    cap: int

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        mu = np.log(self.mean) - self.sigma**2 / 2
        drawn = np.rint(rng.lognormal(mu, self.sigma, count)).astype(np.int64)
        return np.clip(drawn, 1, self.cap)


# Where a trace tells no lengths. Chat prompts spread widely, answers less so.
PROMPT_TOKENS = Lognormal(500.0, 0.9, 1024)
OUTPUT_TOKENS = Lognormal(150.0, 0.8, 512)
