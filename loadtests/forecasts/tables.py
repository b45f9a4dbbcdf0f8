"""What a person sees of a back-test, of the next day, of the scoreboard. An edge.

In: findings. Out: rich tables and sentences. Never: computes a figure; hides a stream that is lost.
"""

from collections.abc import Iterator, Sequence
from math import isnan

from rich import box
from rich.table import Table

from loadtests.forecasts.document import Trial, told_of_all
from loadtests.forecasts.findings import LAST_VALUE, Field, Loss, losses
from loadtests.forecasts.outlook import Outlook
from loadtests.forecasts.scoreboard import Place, scoreboard
from loadtests.forecasts.words import (
    HEADS,
    OUTLOOK_HEADS,
    field_rows,
    number,
    outlook_cells,
    percent,
)
from placement.catalog_units import human_time
from prewarm.calendars import US

LOST_SHOWN = 10
NOTES_SHOWN = 12


def field_tables(trial: Trial) -> Iterator[Table]:
    for field in trial.table:
        yield field_table(field, trial)


def field_table(field: Field, trial: Trial) -> Table:
    """Everyone at one horizon, the best first."""
    title = f"{trial.name} · {trial.demand} · {field.word} ahead · {field.ours.streams} streams"
    table = new_table(title, HEADS)
    for at, (cells, better) in enumerate(field_rows(field)):
        table.add_row(*cells, style="bold" if not at else "red" if better else "")
        if not at:
            table.add_section()
    return table


_BOARD_HEADS = (
    "forecaster", "share", "pinball", "cost r/4", "cost r", "cost 4r", "q90", "q95", "stale", "fit",
    "may act",
)  # fmt: skip


def board_tables(trial: Trial) -> Iterator[Table]:
    """A table for each horizon."""
    places = scoreboard(trial)
    for word in dict.fromkeys(place.horizon for place in places):
        title = f"{trial.name} · {trial.demand} · {word} ahead · r = {trial.waiting_to_idle:g}"
        table = new_table(title, _BOARD_HEADS)
        for at, place in enumerate(one for one in places if one.horizon == word):
            table.add_row(*_board_row(place), style="" if at else "bold")
            if not at:
                table.add_section()
        yield table


def _board_row(place: Place) -> list[str]:
    return [
        place.forecaster,
        percent(place.share),
        number(place.pinball, 4),
        *(number(cost, 3) for cost in (place.cost_quarter, place.cost, place.cost_fourfold)),
        *(percent(share) for share in (place.coverage_q90, place.coverage_q95)),
        _age(place.staleness_s),
        f"{place.fit_s:.2f} s" if place.fit_s else "–",
        place.error or ("yes" if place.right_to_act else "no"),
    ]


def _age(staleness_s: float) -> str:
    if isnan(staleness_s):
        return "no fit"
    return human_time(round(staleness_s * US)) if staleness_s else "–"


def outlook_table(outlook: Outlook) -> Table:
    title = (
        f"{outlook.model} · {outlook.target} in a bin of {outlook.bin_s:g} s · {outlook.demand} · "
        f"{outlook.zone}"
    )
    table = new_table(title, OUTLOOK_HEADS)
    for row in outlook.rows:
        table.add_row(*outlook_cells(row), style="" if row.acts else "dim")
    return table


def outlook_lines(outlook: Outlook) -> Iterator[str]:
    if not all(row.acts for row in outlook.rows):
        yield "may act: no dearer than last value of late, at the price r of waiting, r/4 and 4r"
    yield from outlook.notes


def told_below(trial: Trial) -> Iterator[str]:
    """The bar, who acted, what was wrong with the data, what is lost."""
    table = trial.table
    for field in table:
        if field.best_simple:
            yield (
                f"{field.word}: pinball {number(field.against(field.best_simple), 3)} x "
                f"{field.best_simple} (* the best simple baseline), "
                f"{number(field.against(LAST_VALUE), 3)} x last value; "
                f"had the right to act in {percent(field.acted_share)} of the bins"
            )
    yield "pinball: mean over q50, q90, q95, in units of a stream's mean; cost: newsvendor, at " + (
        f"waiting:idle {trial.waiting_to_idle:g}"
    )
    yield from told_of_all(trial)
    yield from _notes(trial)
    yield from lost_lines(losses(trial.found, table))


def lost_lines(found: Sequence[Loss]) -> Iterator[str]:
    if not found:
        return
    yield f"lost to the best simple baseline, of all streams x horizons {len(found)}, worst first:"
    for one in found[:LOST_SHOWN]:
        yield (
            f"  {one.stream}, {one.word}: {one.ours:.4f}, {one.name} {one.theirs:.4f} "
            f"({one.ratio:.2f} x; {number(one.against_last, 2)} x last value)"
        )
    if len(found) > LOST_SHOWN:
        yield f"  and {len(found) - LOST_SHOWN} more: --json has them all"


def _notes(trial: Trial) -> Iterator[str]:
    notes = {
        one.stream: (*trial.notes.get(one.stream, ()), *one.notes) for one in trial.found.streams
    }
    told = [
        f"{stream}: {note}" for stream, all_of in notes.items() for note in dict.fromkeys(all_of)
    ]
    yield from told[:NOTES_SHOWN]
    if len(told) > NOTES_SHOWN:
        yield f"and {len(told) - NOTES_SHOWN} more notes on the data: --json has them all"


def new_table(title: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    return table
