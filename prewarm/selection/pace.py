"""How fast to learn and to forget, in bins. Pure.

In: a time axis. Out: how many bins count as a day's worth of learning.
Bins below a minute are about what goes on right now: there four minutes are long.
"""

from prewarm.calendars import US, Calendar

LONGEST = 288
"""The bins of a day of five minutes."""
SHORT_US = 60 * US
SHORTEST = 12


def pace_bins(calendar: Calendar) -> int:
    return min(calendar.day_bins, SHORTEST if calendar.width_us < SHORT_US else LONGEST)
