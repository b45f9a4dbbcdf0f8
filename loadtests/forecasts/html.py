"""The report of a back-test: one HTML file that fetches nothing. Pure.

In: a `Trial` and its `Trail`. Out: HTML: everyone per horizon, lost streams marked, and for the
busiest and the worst streams what was asked beside what was forecast. Never: a figure without the
trace that it is of.
"""

from collections.abc import Iterator, Sequence
from html import escape
from math import nan
from typing import TYPE_CHECKING

from loadtests.drawing import png, svg
from loadtests.forecasts.document import Trial, told_of_all
from loadtests.forecasts.findings import Field, losses, ratio
from loadtests.forecasts.plots import BINS_DRAWN_MAX, Strand, forecasts
from loadtests.forecasts.trails import strand_of
from loadtests.forecasts.words import HEADS, field_rows, number, percent
from loadtests.page import page, part, table
from prewarm.scores import StreamResult

if TYPE_CHECKING:
    from prewarm.backtest import Trail

BUSIEST_DRAWN, WORST_DRAWN = 2, 2
SMALL_DPI = 72
_STREAM_HEADS = (
    "horizon", "method", "pinball", "WAPE", "q90 holds", "q95 holds", "cost", "acts", "bins",
    "÷ best simple",
)  # fmt: skip


def report_html(trial: Trial, trail: "Trail") -> str:
    calendar = trial.panel.calendar
    drawn = streams_drawn(trial)
    body = [
        f"<h1>{escape(trial.name)}</h1>",
        f'<p class="evidence">A back-test with a rolling origin on <b>{escape(trial.demand)}</b> '
        f"demand: {len(trial.panel)} bins of {calendar.width_us / 1e6:g} s, scored from bin "
        f"{trial.found.first_scored} on. Local time: {escape(calendar.zone)}. Price of waiting to "
        f"idle: {trial.waiting_to_idle:g}.</p>",
        *(f"<p>{escape(line)}</p>" for line in told_of_all(trial)),
        *(piece for field in trial.table for piece in _field(field)),
        "<h2>Streams</h2>",
        f"<p>Drawn: {escape(', '.join(drawn) or 'none')}: the busiest, and the worst.</p>",
        *(piece for stream in drawn for piece in _stream(stream, trial, trail)),
        *_lost(trial),
        *_notes(trial),
    ]
    return page(f"{trial.name}: forecasts", body)


def one_png(trial: Trial, trail: "Trail") -> bytes:
    """The busiest stream, a plot for each horizon."""
    [stream, *_] = streams_drawn(trial)
    strands = _strands(stream, trial, trail)
    return png(forecasts(strands, trail.names, trial.panel.calendar))


def small_png(trial: Trial, trail: "Trail", bins: int) -> bytes:
    """The busiest stream's newest bins at the middle horizon, for a page that shows many."""
    [stream, *_] = streams_drawn(trial)
    strands = _strands(stream, trial, trail, bins)
    middle = strands[len(strands) // 2]
    return png(forecasts([middle], trail.names, trial.panel.calendar), SMALL_DPI)


def streams_drawn(trial: Trial) -> list[str]:
    """The busiest and the worst, each once."""
    scored = {one.stream: one.scored for one in trial.found.streams}
    busiest = sorted(scored, key=lambda name: (-scored[name], name))[:BUSIEST_DRAWN]
    worst = dict.fromkeys(one.stream for one in losses(trial.found, trial.table))
    return list(dict.fromkeys([*busiest, *list(worst)[:WORST_DRAWN]]))


def _field(field: Field) -> Iterator[str]:
    yield f"<h2>{escape(field.word)} ahead: {field.ours.streams} streams</h2>"
    yield table(HEADS, field_rows(field))
    yield "<p>* the best simple baseline. Marked: does better than ours.</p>"


def _stream(stream: str, trial: Trial, trail: "Trail") -> Iterator[str]:
    result = next(one for one in trial.found.streams if one.stream == stream)
    strands = _strands(stream, trial, trail)
    yield f"<h3>{escape(stream)}</h3>{table(_STREAM_HEADS, _stream_rows(result, trial))}"
    if strands and len(strands[0].actual):
        shown = len(strands[0].actual)
        yield part(
            f"{stream}: the newest {shown} bins; below each plot who weighed most, and where the "
            "forecast had the right to act",
            svg(forecasts(strands, trail.names, trial.panel.calendar)),
        )


def _strands(stream: str, trial: Trial, trail: "Trail", bins: int = BINS_DRAWN_MAX) -> list[Strand]:
    at = trial.panel.streams.index(stream)
    return [
        strand_of(trail, at, place, stream, horizon.word).newest(bins)
        for place, horizon in enumerate(trial.horizons)
    ]


def _stream_rows(result: StreamResult, trial: Trial) -> Iterator[tuple[Sequence[str], bool]]:
    for one, field in zip(result.horizons, trial.table, strict=True):
        bar = one.forecasters.get(field.best_simple)
        over = ratio(one.score.pinball, bar.pinball) if bar else nan
        most = max(one.method_share, key=lambda name: one.method_share[name], default="–")
        cells = [
            field.word,
            most,
            number(one.score.pinball, 4),
            number(one.score.wape, 3),
            percent(one.score.coverage_q90),
            percent(one.score.coverage_q95),
            number(one.score.decision_cost, 3),
            percent(one.acted_share),
            str(one.score.n),
            number(over, 3) + (" loses" if over > 1 else ""),
        ]
        yield cells, over > 1


def _lost(trial: Trial) -> Iterator[str]:
    found = losses(trial.found, trial.table)
    yield f"<h2>Lost to the best simple baseline: {len(found)}</h2>"
    if found:
        heads = ("stream", "horizon", "pinball", "baseline", "its pinball", "× last value", "ratio")
        yield table(
            heads,
            (
                (
                    [
                        one.stream,
                        one.word,
                        number(one.ours, 4),
                        one.name,
                        number(one.theirs, 4),
                        number(one.against_last, 3),
                        number(one.ratio, 3),
                    ],
                    True,
                )
                for one in found
            ),
        )


def _notes(trial: Trial) -> Iterator[str]:
    notes = {
        one.stream: list(dict.fromkeys((*trial.notes.get(one.stream, ()), *one.notes)))
        for one in trial.found.streams
    }
    lines = [
        f"<li>{escape(name)}: {escape(n)}</li>" for name, all_of in notes.items() for n in all_of
    ]
    if lines:
        yield f"<h2>What was wrong with the data</h2><ul>{''.join(lines)}</ul>"
