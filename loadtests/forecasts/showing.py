"""The next day of one model: learns the past up to now, then asks. An edge.

In: demand, a model. Out: an `Outlook`. Never: judges by bins that were not forecast: the last days
are gone through bin by bin, as a gateway would have.
"""

from typing import NamedTuple

import numpy as np

from gateway.progress import Steps
from loadtests.draws import stream
from loadtests.errors import AskedError, no_such
from loadtests.forecasts.data import Data
from loadtests.forecasts.files import Drawing
from loadtests.forecasts.outlook import Outlook, Said, horizons_of_a_day, rows_of
from placement.catalog_units import human_time
from prewarm.calendars import DAY_US, US
from prewarm.events import Uplift
from prewarm.forecast import Setting
from prewarm.forecasters.background import InPlace
from prewarm.forecasters.guests import House
from prewarm.forecasters.plugins import UnknownForecasterError
from prewarm.prior import Prior, hints_of
from prewarm.selection.gate import PRICE_FACTORS
from prewarm.selection.selector import Selector, Standing
from prewarm.series import Floats, Panel, Target

WATCHED_DAYS = 4
"""The right to act is a matter of the last days."""
PROGRESS_BINS = 20
WIDTH_MIN_US = US
"""A day has to fit into memory, bin by bin."""


class Shown(NamedTuple):
    outlook: Outlook
    panel: Panel
    """Of the one model."""


def next_day(
    data: Data, model: str, target: str, price: float | None, seed: int, shown: Steps
) -> Shown:
    panel = one_model(data.panel, model)
    if not len(panel) or np.isnan(panel.values).all():
        raise AskedError(f"nothing was observed of {model}: there is nothing to forecast from")
    if panel.calendar.width_us < WIDTH_MIN_US:
        raise AskedError(
            f"bins of {human_time(panel.calendar.width_us)} are too narrow to forecast a day in; "
            "ask for wider ones, as in --bin 10s"
        )
    price = price or data.catalog.waiting_to_idle(model)
    setting = Setting(
        calendar=panel.calendar,
        streams=panel.streams,
        horizons=horizons_of_a_day(panel.calendar.width_us),
        whole=panel.whole,
    )
    selector = _selector(data, setting, target, price, seed)
    quantiles = _gone_through(selector, panel, shown)
    newest = len(panel) - 1
    outlook = Outlook(
        model=model,
        target=target,
        demand=data.demand,
        zone=panel.calendar.zone,
        bin_s=panel.calendar.width_us / US,
        newest_s=panel.calendar.at_us(newest) / US,
        newest=float(panel.values[-1, 0]),
        rows=rows_of(panel.calendar, newest, _said(selector, setting, price), quantiles),
        notes=data.notes.get(model, ()),
    )
    return Shown(outlook, panel)


def _selector(data: Data, setting: Setting, target: str, price: float, seed: int) -> Selector:
    """With what the catalog knows: announced events, what is expected of a new model, guests."""
    catalog, calendar = data.catalog, setting.calendar
    known = hints_of(catalog.models, setting.streams, calendar.width_us)
    try:
        guests = House(catalog.forecast.forecasters, setting, InPlace(), catalog.forecast.country)
    except UnknownForecasterError as error:
        raise AskedError(f"forecast.forecasters in the catalog: {error}") from error
    return Selector(
        setting,
        stream(seed, "pit"),
        waiting_to_idle=price,
        guests=guests.guests,
        uplift=Uplift(calendar, setting.streams, data.events) if data.events else None,
        # What is expected of a model is said in requests.
        prior=Prior(setting, known) if target == Target.REQUESTS and catalog.models else None,
    )


def drawing() -> Drawing:
    from loadtests.forecasts.outlook_page import outlook_html, outlook_png

    return Drawing(outlook_png, outlook_html)


def one_model(panel: Panel, model: str) -> Panel:
    if model not in panel.streams:
        raise AskedError(no_such("model", model, panel.streams))
    at = panel.streams.index(model)
    return Panel(
        calendar=panel.calendar,
        streams=(model,),
        values=panel.values[:, at : at + 1],
        whole=panel.whole,
    )


def _gone_through(selector: Selector, panel: Panel, shown: Steps) -> Floats:
    """What it says after the newest bin. Shape H x L."""
    watched = max(WATCHED_DAYS * DAY_US // panel.calendar.width_us, 1)
    taught = max(len(panel) - watched, 0)
    shown.step("learning the past")
    selector.fit(
        Panel(
            calendar=panel.calendar,
            streams=panel.streams,
            values=panel.values[:taught],
            whole=panel.whole,
        )
    )
    found = None
    for at, values in enumerate(panel.values[taught:]):
        if at % PROGRESS_BINS == 0:
            shown.step(f"going through the last days: {at / watched:.0%}", name="days")
        selector.update(values)
        found = selector.predict()
    assert found is not None, "the panel has bins"
    newest: Floats = found[0]
    return newest


def _said(selector: Selector, setting: Setting, price: float) -> list[Said]:
    blend = selector.standings()["blend"]
    said = []
    for place, bins in enumerate(setting.horizons):
        weights = selector.weights[:, 0, place]
        most = int(weights.argmax())
        acts = bool(selector.acts[0, place])
        said.append(
            Said(
                bins=bins,
                method=selector.names[most],
                share=float(weights[most]),
                acts=acts,
                why="" if acts else why_not(blend, place, price),
            )
        )
    return said


def why_not(blend: Standing, place: int, price: float) -> str:
    """Why a forecast may not be acted on, in words."""
    costs = dict(zip(PRICE_FACTORS, blend.cost[0, place].tolist(), strict=True))
    worst = max(costs, key=lambda factor: costs[factor])
    if not costs[worst] > 1:
        return "tried for less than a day"
    return f"{costs[worst]:.2f} x last value, r = {price * worst:g}"
