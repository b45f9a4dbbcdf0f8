"""How far, how finely and in which variant to look ahead. Pure.

In: nothing. Out: `Options`, one record for all parts and for the ablations. Never: decides.
"""

from enum import StrEnum

from placement.catalog import Frozen
from prewarm.calendars import US


class Together(StrEnum):
    """Which forecast errors of different models go into one path."""

    JOINT = "joint"
    """Those that were made at the same time: models burst together as they did."""
    INDEPENDENT = "independent"
    """Each model's own, drawn for itself."""
    POINT = "point"
    """None: every path is the median."""


class Options(Frozen, frozen=True, kw_only=True):
    """The defaults are what is run."""

    width_us: int = 300 * US
    """Of the bins that are forecast."""
    horizons: tuple[int, ...] = (1, 2, 4, 7, 12)
    """In bins; between them a forecast lies on the straight line, beyond them it stays. Half an
    hour from within a bin reaches into the seventh."""
    paths: int = 128
    steps: int = 12
    """Of the joint paths, a bin each."""
    within_us: tuple[int, ...] = (10 * US, 60 * US, 300 * US, 1800 * US)
    """Within which times it is said how many replicas are needed, ascending."""
    near_every_us: int = US // 2
    """So long rates of the moment hold."""
    need_every_us: int = 10 * US
    """So long it holds how many replicas are needed; a bin's end makes it new as well."""
    paths_every_us: int = 300 * US
    """How often joint paths are drawn for a residency plan."""
    half_life_us: int = 20 * US
    """Of the rate of the moment."""
    together: Together = Together.JOINT
    inverted: bool = False
    """Say much where little is expected and little where much is: a forecast gone wrong after it
    had earned its right to act."""


DEFAULT = Options()
