"""`warmtide forecast`. An edge: the command line, the exit code. Light, as every help loads it.

In: options. Out: tables or one JSON document on stdout, everything else on stderr; exit 0 when
done, 1 when something failed or was interrupted, 2 when the input was at fault.
Never: decides anything about a forecast.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.completing import listed
from gateway.progress import steps
from gateway.words import say
from loadtests.telling import option, screen, told
from loadtests.trace_places import named_traces

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from loadtests.forecasts.running import Given, Ran
    from loadtests.forecasts.showing import Shown

app = typer.Typer(
    help="What will be asked, how sure that is, and how well it was said before.",
    no_args_is_help=True,
)


def _beside(incomplete: str) -> list[str]:
    from loadtests.forecasts.running import beside_the_usual

    return listed(incomplete, beside_the_usual())


File = Annotated[
    str,
    typer.Argument(
        help="Counts (CSV: t_s or ISO time, a column a stream, empty = hole), a request trace, or "
        "'generated'.",
        autocompletion=named_traces,
    ),
]
Model = Annotated[str, typer.Argument(help="A model of the history, or a stream of --file.")]
InPlace = Annotated[str, option("Counts in place of the history.", autocompletion=named_traces)]
FromHistory = Annotated[bool, option("The demand that a gateway recorded.", "--from-history")]
StateDir = Annotated[Path | None, option("Whose history; default $XDG_STATE_HOME/warmtide.")]
CatalogFile = Annotated[
    Path | None, option("Zone, price, service times of the history; else the running gateway's.")
]
Target = Annotated[
    str,
    option(
        "Of the history: requests, prompt_tokens, output_tokens, concurrency_mean or "
        "concurrency_peak."
    ),
]
Horizons = Annotated[str, option("How far ahead: 10m,20m,60m,4h; whole bins each.")]
Bin = Annotated[str, option("Width of a bin; request traces: 10s if not given.", "--bin")]
ScoreFrom = Annotated[str, option("Score from here on, as 8d; earlier bins only teach.")]
Zone = Annotated[str, option("Time zone in which people ask, as Europe/Berlin; else UTC.")]
Streams = Annotated[str, option("These streams only: a,b.")]
Busiest = Annotated[int | None, option("The so many busiest streams only.", min=1)]
With = Annotated[
    str,
    option(
        "Slow forecasters or plug-ins beside the usual: prophet,mstl.",
        "--with",
        autocompletion=_beside,
    ),
]
Ratio = Annotated[
    float | None,
    option(
        "Cost of a replica second short, by that of one idle; else the catalog's, or 9.",
        min=0.01,
        max=10_000,
    ),
]
Seed = Annotated[int, option("Seed of the randomised PIT.", min=0)]
Png = Annotated[Path | None, option("Draw the busiest stream into this file.")]
Html = Annotated[Path | None, option("Write a report with plots into this file.")]
AsJson = Annotated[bool, option("One JSON document on stdout.", "--json")]


@app.command()
def backtest(
    file: File = "",
    from_history: FromHistory = False,
    state_dir: StateDir = None,
    catalog: CatalogFile = None,
    target: Target = "requests",
    horizons: Horizons = "",
    width: Bin = "",
    score_from: ScoreFrom = "",
    zone: Zone = "",
    streams: Streams = "",
    busiest: Busiest = None,
    also: With = "",
    waiting_to_idle: Ratio = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    png: Png = None,
    html: Html = None,
) -> None:
    """Forecast the past as if it were to come, bin by bin, and hold it against what came."""

    def given() -> "Given":
        from loadtests.forecasts.data import Source
        from loadtests.forecasts.running import Given

        source = Source(file, from_history, state_dir, catalog, target, width, zone, seed)
        return Given(source, horizons, score_from, streams, busiest, also, waiting_to_idle)

    ran = _ran("backtest", given, png, html, as_json=as_json)
    if as_json:
        from loadtests.forecasts.document import document

        say(document(ran.trial))
    else:
        from loadtests.forecasts.tables import field_tables, told_below

        _show(field_tables(ran.trial), told_below(ran.trial))


@app.command()
def show(
    model: Model,
    file: InPlace = "",
    state_dir: StateDir = None,
    catalog: CatalogFile = None,
    target: Target = "requests",
    width: Bin = "",
    zone: Zone = "",
    waiting_to_idle: Ratio = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    png: Png = None,
    html: Html = None,
) -> None:
    """The next day of a model, hour by hour: median, q90, q95, who says so, whether it may act."""

    def work(_: "Console") -> "tuple[Shown, list[str]]":
        from loadtests.forecasts.data import Source, data_of
        from loadtests.forecasts.files import Files
        from loadtests.forecasts.showing import drawing, next_day

        files = Files(png, html)
        draws = files.drawing(drawing)
        with steps() as shown:
            shown.step("reading the demand")
            data = data_of(Source(file, not file, state_dir, catalog, target, width, zone, seed))
            found = next_day(data, model, target, waiting_to_idle, seed, shown)
            return found, files.leave(draws, *found) if draws else []

    found, lines = told("forecast show", work, as_json=as_json)
    if as_json:
        from loadtests.forecasts.outlook import outlook_document

        say(outlook_document(found.outlook))
    else:
        from loadtests.forecasts.tables import outlook_lines, outlook_table

        _show([outlook_table(found.outlook)], outlook_lines(found.outlook))
    for line in lines:
        typer.echo(f"warmtide: {line}", err=True)


@app.command()
def scoreboard(
    file: File = "",
    from_history: FromHistory = False,
    state_dir: StateDir = None,
    catalog: CatalogFile = None,
    target: Target = "requests",
    horizons: Horizons = "",
    width: Bin = "",
    score_from: ScoreFrom = "",
    zone: Zone = "",
    streams: Streams = "",
    busiest: Busiest = None,
    waiting_to_idle: Ratio = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Every forecaster, slow ones and plug-ins too: how often chosen, what it cost, may it act."""

    def given() -> "Given":
        from loadtests.forecasts.data import Source
        from loadtests.forecasts.running import EVERYONE, Given

        source = Source(file, from_history, state_dir, catalog, target, width, zone, seed)
        return Given(source, horizons, score_from, streams, busiest, EVERYONE, waiting_to_idle)

    ran = _ran("scoreboard", given, None, None, as_json=as_json)
    if as_json:
        from loadtests.forecasts.scoreboard import scoreboard_document

        say(scoreboard_document(ran.trial))
    else:
        from loadtests.forecasts.tables import board_tables

        _show(board_tables(ran.trial), ())


def _ran(
    name: str,
    given: Callable[[], "Given"],
    png: Path | None,
    html: Path | None,
    *,
    as_json: bool,
) -> "Ran":
    def work(_: "Console") -> "Ran":
        from loadtests.forecasts.files import Files
        from loadtests.forecasts.running import run_backtest

        with steps() as shown:
            return run_backtest(given(), Files(png, html), shown)

    ran = told(f"forecast {name}", work, as_json=as_json)
    for line in ran.told:
        typer.echo(f"warmtide: {line}", err=True)
    return ran


def _show(tables: "Iterable[Table]", lines: Iterable[str]) -> None:
    out = screen(markup=False)
    for table in tables:
        out.print(table)
    for line in lines:
        typer.echo(line)
