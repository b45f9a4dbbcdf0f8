"""The next day of one model, drawn: a picture, or one HTML file that fetches nothing. Pure.

In: an `Outlook` and the past behind it. Out: PNG or HTML. Never: a figure that the table lacks.
"""

from html import escape

import numpy as np
from matplotlib.figure import Figure

from loadtests.drawing import png, svg
from loadtests.forecasts.outlook import Outlook
from loadtests.forecasts.plots import Strand, next_day
from loadtests.forecasts.words import OUTLOOK_HEADS, outlook_cells
from loadtests.page import page, part, table
from prewarm.calendars import DAY_US, US
from prewarm.series import Panel

PAST_DAYS = 3


def outlook_png(outlook: Outlook, panel: Panel) -> bytes:
    return png(_figure(outlook, panel))


def outlook_html(outlook: Outlook, panel: Panel) -> str:
    title = f"{outlook.model}: the next day"
    rows = [(outlook_cells(row), not row.acts) for row in outlook.rows]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="evidence">{escape(outlook.target)} in a bin of {outlook.bin_s:g} s, from '
        f"<b>{escape(outlook.demand)}</b> demand; local time: {escape(outlook.zone)}.</p>",
        *(f"<p>{escape(note)}</p>" for note in outlook.notes),
        part("Last days, next day", svg(_figure(outlook, panel))),
        table(OUTLOOK_HEADS, rows),
        "<p>Marked: has no right to act.</p>",
    ]
    return page(title, body)


def _figure(outlook: Outlook, panel: Panel) -> Figure:
    calendar = panel.calendar
    kept = min(PAST_DAYS * DAY_US // calendar.width_us, len(panel))
    newest = len(panel) - 1
    ahead = [round(row.ahead_s * US) // calendar.width_us for row in outlook.rows]
    names = list(dict.fromkeys(row.method for row in outlook.rows if row.method))
    nothing = np.full(kept, np.nan)
    past = Strand(
        stream=outlook.model,
        word="",
        first=newest + 1 - kept,
        actual=panel.values[-kept:, 0],
        q50=nothing,
        q90=nothing,
        q95=nothing,
        chosen=np.full(kept, -1),
        acted=np.zeros(kept, np.bool_),
    )
    coming = Strand(
        stream=outlook.model,
        word=f"{outlook.target}, the next day",
        first=newest + ahead[0],
        actual=np.full(len(ahead), np.nan),
        q50=np.array([row.q50 for row in outlook.rows]),
        q90=np.array([row.q90 for row in outlook.rows]),
        q95=np.array([row.q95 for row in outlook.rows]),
        chosen=np.array([names.index(r.method) if r.method else -1 for r in outlook.rows]),
        acted=np.array([row.acts for row in outlook.rows]),
    )
    return next_day(past, coming, ahead[0], names, calendar)
