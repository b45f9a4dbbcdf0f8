"""A back-test from what was typed to the files it leaves. An edge.

In: options, as words. Out: `Ran`; a PNG or an HTML file where one is asked for. Files are checked
before anything runs. Never: prints, apart from progress on the screen that it is given.
"""

from typing import NamedTuple

import numpy as np

from gateway.progress import Steps
from loadtests.errors import AskedError
from loadtests.forecasts.asked import (
    chosen_streams,
    first_scored,
    horizons_of,
    names_of,
    why_unscored,
)
from loadtests.forecasts.data import Data, Source, data_of
from loadtests.forecasts.document import Trial
from loadtests.forecasts.files import Drawing, Files
from prewarm.backtest import Ask, Trail, backtest
from prewarm.forecast import LEVELS
from prewarm.forecasters.plugins import UnknownForecasterError, forecaster_names
from prewarm.forecasters.registry import POINTS, SIMPLE
from prewarm.selection.analogs import KINDS

MEMORY_MAX_BYTES = 4_000_000_000
EVERYONE = "everyone"
"""In place of names: all that there are, slow ones and plug-ins too."""


class Given(NamedTuple):
    """As typed; an empty word is the usual."""

    source: Source
    horizons: str
    score_from: str
    streams: str
    busiest: int | None
    also: str
    waiting_to_idle: float | None


class Ran(NamedTuple):
    trial: Trial
    trail: Trail | None
    told: list[str]
    """Sentences for whoever waited."""


def run_backtest(given: Given, files: Files, shown: Steps) -> Ran:
    drawing = files.drawing(_drawing)
    shown.step("reading the demand")
    data = read(given)
    ran = tried_on(data, given, shown, keep=drawing is not None)
    if drawing is not None and ran.trail is not None:
        shown.step("drawing")
        ran.told.extend(files.leave(drawing, ran.trial, ran.trail))
    return ran


def read(given: Given) -> Data:
    data = data_of(given.source)
    return data._replace(panel=chosen_streams(data.panel, given.streams, given.busiest))


def tried_on(data: Data, given: Given, shown: Steps, *, keep: bool) -> Ran:
    panel = data.panel
    horizons = horizons_of(given.horizons, panel.calendar.width_us)
    price = given.waiting_to_idle or data.catalog.policy.waiting_to_idle
    first = first_scored(given.score_from, panel)
    unscored = why_unscored(given.score_from, first, panel)
    ask = Ask(
        horizons=tuple(horizon.bins for horizon in horizons),
        score_from=first,
        waiting_to_idle=price,
        forecasters=_competing(given.also),
        keep=keep,
        seed=given.source.seed,
        events=data.events,
        country=data.catalog.forecast.country,
    )

    refuse_what_no_memory_holds(len(panel) - first, len(panel.streams), len(horizons))

    def progress(share: float) -> None:
        shown.step(f"back-testing {len(panel.streams)} streams: {share:.0%}", name="backtest")

    try:
        found, trail = backtest(panel, ask, progress)
    except UnknownForecasterError as error:
        raise AskedError(str(error)) from None
    trial = Trial(
        name=data.name,
        demand=data.demand,
        panel=panel,
        notes={name: (*data.notes.get(name, ()), *unscored) for name in panel.streams},
        horizons=horizons,
        waiting_to_idle=price,
        seed=given.source.seed,
        simple=SIMPLE,
        found=found,
    )
    return Ran(trial, trail, [])


def refuse_what_no_memory_holds(bins: int, streams: int, horizons: int) -> None:
    """Every forecaster's quantiles of every scored bin are kept until they are scored."""
    members = len(forecaster_names()) + len(KINDS)
    needed_bytes = bins * streams * horizons * members * len(LEVELS) * np.dtype(np.float32).itemsize
    if needed_bytes > MEMORY_MAX_BYTES:
        raise AskedError(
            f"{streams} streams x {bins} scored bins x {horizons} horizons take "
            f"{needed_bytes / 1e9:.0f} GB: name fewer by --busiest N, --streams or --horizons, or "
            "score from later on by --score-from"
        )


def beside_the_usual() -> list[str]:
    """Slow forecasters, and those of other packages."""
    return [name for name in forecaster_names() if name not in POINTS]


def _competing(also: str) -> tuple[str, ...]:
    """Beside the usual ones, which always do."""
    beside = beside_the_usual()
    return tuple(beside) if also == EVERYONE else names_of(also, "--with", beside)


def _drawing() -> Drawing:
    from loadtests.forecasts.html import one_png, report_html

    return Drawing(one_png, report_html)
