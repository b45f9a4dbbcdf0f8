"""Where the demand comes from: a file, our generator, the history of a gateway. An edge.

In: a path or the word `generated`, or a state directory. Out: `Data`: a panel and what was repaired
on the way. Never: falls back to generated demand without saying so.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from gateway import state_dir
from loadtests.errors import AskedError, no_such
from loadtests.generator import generate_counts
from loadtests.spans import span_us
from loadtests.trace_places import GENERATED
from placement.catalog import Catalog, DemandEvent
from placement.catalog_file import load_catalog
from placement.clock import wall_us
from prewarm.calendars import US, Calendar
from prewarm.event_file import EventFileError, read_events
from prewarm.events import merged
from prewarm.history_panels import read_demand
from prewarm.series import Panel, Target
from prewarm.traces.lenient import read_panel
from prewarm.traces.records import Counts

RECORDED = "recorded"
HISTORY_WIDTH_US = 300 * US
TARGETS = tuple(Target)
NO_CATALOG = Catalog(version="", models=())


class Source(NamedTuple):
    """As typed; an empty word is the usual."""

    file: str
    from_history: bool = False
    state_dir: Path | None = None
    catalog: Path | None = None
    target: str = Target.REQUESTS
    width: str = ""
    zone: str = ""
    seed: int = 0


class Data(NamedTuple):
    name: str
    demand: str
    """`recorded` or `generated`."""
    panel: Panel
    notes: dict[str, tuple[str, ...]]
    """Per stream, what was wrong and what became of it."""
    catalog: Catalog = NO_CATALOG
    """Whose prices hold, and whose forecasters take part."""
    events: tuple[DemandEvent, ...] = ()
    """Of the catalog, and announced by command."""


def data_of(source: Source) -> Data:
    """Raises `AskedError` or `TraceError`."""
    if source.from_history == bool(source.file):
        raise AskedError("name a file of counts, or 'generated', or give --from-history")
    if source.from_history:
        return _of_history(source)
    zone = source.zone or "UTC"
    if source.file == GENERATED:
        return generated(source.seed, zone)
    path = Path(source.file)
    found = read_panel(path, bin_us=_width_us(source.width), zone=zone)
    return Data(path.name, RECORDED, found.panel, found.notes)


def _of_history(source: Source) -> Data:
    """Raises `NoHistoryError`, too."""
    if source.target not in TARGETS:
        raise AskedError(f"--target: {no_such('target', source.target, TARGETS)}")
    target = Target(source.target)
    folder = state_dir.named(source.state_dir)
    card = state_dir.read_card(folder)
    catalog = catalog_of(source.catalog, card)
    if not catalog.models and target in (Target.CONCURRENCY_MEAN, Target.CONCURRENCY_PEAK):
        raise AskedError(
            f"--target {target}: is arrivals x service time, which the catalog knows: name it by "
            "--catalog, as no gateway runs here"
        )
    path = state_dir.history_file(folder, None if card is None else card.time_scale)
    width_us = _width_us(source.width) or HISTORY_WIDTH_US
    zone = source.zone or catalog.forecast.time_zone
    from_us, to_us = _kept(path, catalog)
    try:
        found = read_demand(
            path,
            target,
            catalog,
            width_s=width_us // US,
            from_us=from_us,
            to_us=to_us,
            zone=zone,
        )
    except ValueError as error:
        raise AskedError(f"--bin {source.width}: {error}") from None
    try:
        events = merged(catalog.forecast.events, read_events(folder))
    except EventFileError as error:
        raise AskedError(str(error)) from None
    return Data(f"history of {folder}", RECORDED, found.panel, found.notes, catalog, events)


def _kept(history: Path, catalog: Catalog) -> tuple[int, int]:
    """From when to when rows can be right: a clock that once ran ahead has left some of years to
    come. A fleet whose time runs faster than the wall has none to hold them against."""
    if state_dir.is_scaled(history):
        return 0, 2**62
    now_us = wall_us()
    return now_us - catalog.telemetry.history.five_us, now_us


def catalog_of(given: Path | None, card: state_dir.Card | None) -> Catalog:
    """The one that is named, else the running gateway's, else one without models."""
    path = given or (Path(card.catalog) if card else None)
    return load_catalog(path) if path else NO_CATALOG


def _width_us(text: str) -> int | None:
    if not text:
        return None
    found = span_us(text, "--bin")
    if found <= 0:
        raise AskedError("--bin must be longer than nothing")
    return found


def generated(seed: int, zone: str = "UTC") -> Data:
    panel = panel_of(generate_counts(seed), zone)
    return Data(f"generated ({seed})", GENERATED, panel, {})


def panel_of(counts: Counts, zone: str = "UTC") -> Panel:
    return Panel(
        calendar=Calendar(counts.start_us, counts.width_us, zone),
        streams=counts.streams,
        values=np.where(counts.holes, np.nan, counts.counts.astype(np.float64)),
    )
