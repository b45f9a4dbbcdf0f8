"""Plots of forecasts: what was asked, median, band, misses, who forecast, who might act. Pure.

In: `Strand`s, arrays of one stream at one horizon. Out: matplotlib's figures. Never: draws more
bins than can be told apart; what is left out is said in the title by whoever asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from loadtests.drawing import COLOURS, STYLED
from prewarm.calendars import DAY_US, Calendar
from prewarm.series import Floats

BINS_DRAWN_MAX = 1000
NOBODY = "#f2f2f2"
BAND, MEDIAN, ACTUAL = "#56B4E9", "#0072B2", "#333333"
MISS90, MISS95 = "#E69F00", "#D55E00"
GATE = (NOBODY, "#009E73")
MANY_COLOURS = (*COLOURS, *map(to_hex, mpl.colormaps["tab20"].resampled(20)(range(20))))
"""A strip has no room for markers: past the palette, twenty more that can be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Strand:
    """One stream at one horizon, bin by bin from `first` on. NaN: nothing there."""

    stream: str
    word: str
    first: int
    actual: Floats
    q50: Floats
    q90: Floats
    q95: Floats
    chosen: NDArray[np.int64]
    """Place in the names of the forecasters; -1 where none was chosen."""
    acted: NDArray[np.bool_]

    def newest(self, bins: int) -> "Strand":
        """The last so many bins."""
        skip = max(len(self.actual) - bins, 0)
        return Strand(
            stream=self.stream,
            word=self.word,
            first=self.first + skip,
            actual=self.actual[skip:],
            q50=self.q50[skip:],
            q90=self.q90[skip:],
            q95=self.q95[skip:],
            chosen=self.chosen[skip:],
            acted=self.acted[skip:],
        )


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Each forecaster keeps its colour through all plots of a report."""
    return {name: MANY_COLOURS[at % len(MANY_COLOURS)] for at, name in enumerate(names)}


@STYLED
def forecasts(strands: Sequence[Strand], names: Sequence[str], calendar: Calendar) -> Figure:
    """A panel for each horizon: the forecast made so long before, and what came."""
    figure = Figure(figsize=(9.0, 0.5 + 2.6 * len(strands)), layout="constrained")
    rows = figure.subplots(
        3 * len(strands), 1, sharex=True, squeeze=False, height_ratios=[8, 0.7, 0.7] * len(strands)
    )[:, 0]
    for place, strand in enumerate(strands):
        main, strip, gate = rows[3 * place : 3 * place + 3]
        at = _times(strand, calendar)
        _band(main, strand, at)
        _strip(strip, strand.chosen, at, list(colours_of(names).values()), "who")
        _strip(gate, strand.acted.astype(np.int64), at, GATE, "acts")
    _dated(rows[-1], calendar)
    _named(figure, strands, names)
    return figure


def _named(figure: Figure, strands: Sequence[Strand], names: Sequence[str]) -> None:
    """Whose colours are whose, of those that were chosen at all."""
    used = sorted({int(at) for one in strands for at in np.unique(one.chosen) if at >= 0})
    colours = colours_of(names)
    figure.legend(
        handles=[Patch(facecolor=colours[names[at]], label=names[at]) for at in used],
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=7,
    )


@STYLED
def next_day(
    past: Strand, coming: Strand, step: int, names: Sequence[str], calendar: Calendar
) -> Figure:
    """What was asked in the last days, and what is said of every `step`-th bin to come."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    main, strip, gate = figure.subplots(3, 1, sharex=True, height_ratios=[8, 0.7, 0.7])
    main.plot(_times(past, calendar), past.actual, color=ACTUAL, linewidth=0.8, label="asked")
    at = _times(coming, calendar, step)
    _cone(main, coming, at)
    _titled(main, f"{coming.stream}, {coming.word}")
    main.legend(frameon=False, ncols=4, fontsize=7, loc="upper left")
    _strip(strip, coming.chosen, at, list(colours_of(names).values()), "who")
    _strip(gate, coming.acted.astype(np.int64), at, GATE, "acts")
    main.set_xlim(left=_times(past, calendar)[0])
    _dated(gate, calendar)
    _named(figure, [coming], names)
    return figure


def _titled(axes: Axes, title: str) -> None:
    """As it stands: a stream may be called "$x_$", which is no formula."""
    axes.set_title(title, loc="left", fontsize=9, parse_math=False)


def _cone(axes: Axes, strand: Strand, at: Floats) -> None:
    axes.fill_between(at, 0, strand.q95, color=BAND, alpha=0.2, linewidth=0, label="up to q95")
    axes.fill_between(at, 0, strand.q90, color=BAND, alpha=0.3, linewidth=0, label="up to q90")
    axes.plot(at, strand.q50, color=MEDIAN, linewidth=0.9, label="median")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)


def _band(axes: Axes, strand: Strand, at: Floats) -> None:
    axes.plot(at, strand.actual, color=ACTUAL, linewidth=0.8, label="asked")
    _cone(axes, strand, at)
    above90, above95 = strand.actual > strand.q90, strand.actual > strand.q95
    for missed, colour, label in (
        (above90 & ~above95, MISS90, "above q90"),
        (above95, MISS95, "above q95"),
    ):
        axes.scatter(at[missed], strand.actual[missed], s=8, color=colour, zorder=3, label=label)
    _titled(axes, f"{strand.stream}, {strand.word} ahead")
    axes.legend(frameon=False, ncols=6, fontsize=7, loc="upper right")


def _strip(
    axes: Axes, values: NDArray[np.int64], at: Floats, colours: Sequence[str], label: str
) -> None:
    """A line of coloured cells; nobody's are pale."""
    axes.imshow(
        values[np.newaxis, :],
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap([NOBODY, *colours]),
        norm=BoundaryNorm(np.arange(-1.5, len(colours)), len(colours) + 1),
        extent=(at[0], at[-1] + (at[-1] - at[0]) / max(len(at) - 1, 1), 0, 1),
    )
    axes.set_yticks([0.5], [label], fontsize=7)
    axes.tick_params(left=False)
    axes.spines[:].set_visible(False)


def _times(strand: Strand, calendar: Calendar, step: int = 1) -> Floats:
    """In days since 1970, as matplotlib counts."""
    bins = strand.first + step * np.arange(len(strand.actual), dtype=np.float64)
    found: Floats = (calendar.start_us + bins * calendar.width_us) / DAY_US
    return found


def _dated(axes: Axes, calendar: Calendar) -> None:
    zone: Any = ZoneInfo(calendar.zone)
    locator = AutoDateLocator(tz=zone)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))  # type: ignore[no-untyped-call]


@STYLED
def ratios(rows: Sequence[tuple[str, float, float]]) -> Figure:
    """For each trace and horizon our loss over the best simple baseline's and last value's."""
    figure = Figure(figsize=(7.4, 0.8 + 0.19 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    best, last = (np.array([row[column] for row in rows], np.float64) for column in (1, 2))
    axes.scatter(best, places, s=14, color=COLOURS[0], marker="o", label="÷ best simple", zorder=3)
    axes.scatter(last, places, s=14, color=COLOURS[1], marker="s", label="÷ last value", zorder=3)
    axes.axvline(1.0, color="#777777", linewidth=0.8)
    axes.axvline(0.9, color="#777777", linewidth=0.8, linestyle="--")
    axes.set_yticks(places, [row[0] for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.grid(alpha=0.25)
    axes.set_xlabel("our mean pinball loss ÷ theirs; dashed: 0.90")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure
