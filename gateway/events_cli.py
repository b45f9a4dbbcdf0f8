"""`warmtide events`: announce what will change the demand, list it, take it back. An edge.

In: command line, the state directory, the catalog of its gateway if one runs. Out: a changed file
of events, which forecasts read; a table or one JSON document.
Never: writes the catalog's file; takes a name for a model that nobody could look up without saying.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from gateway import completing, state_dir
from gateway.words import FAILED, BadInputError, fail, say
from placement.catalog import Catalog, DemandEvent, ForecastPolicy
from placement.clock import wall_us

if TYPE_CHECKING:
    from prewarm.event_file import Change

app = typer.Typer(help="Announce what will change the demand.", no_args_is_help=True)

US = 1_000_000
StateDir = Annotated[Path | None, typer.Option("--state-dir")]
CatalogFile = Annotated[
    Path | None, typer.Option("--catalog", help="Default: of the running gateway.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Occasions of a thing share a name.")]


@app.command("add")
def add(
    name: Name,
    start: Annotated[str, typer.Option(help="2026-12-01T09:00, by the catalog's time zone.")],
    models: Annotated[
        str, typer.Option(help="Ids, as a,b; default: all.", autocompletion=completing.models)
    ] = "",
    duration: Annotated[str, typer.Option(help="How long it lasts: '4h'.")] = "",
    end: Annotated[str, typer.Option(help="When it ends, instead of --duration.")] = "",
    uplift: Annotated[
        float | None, typer.Option(help="The factor on what would be usual: 3.0.")
    ] = None,
    expected: Annotated[
        str, typer.Option(help="For models without a past: requests of each, '5/s'.")
    ] = "",
    catalog: CatalogFile = None,
    state_dir_: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Announce an event to the forecasts."""
    from gateway.event_input import Given, event_of
    from prewarm.events import occasion

    folder = state_dir.writable_folder(state_dir_)
    known = _catalog(folder, catalog, as_json=as_json)
    given = Given(
        name=name,
        models=models,
        start=start,
        duration=duration,
        end=end,
        uplift=uplift,
        expected=expected,
    )
    event = event_of(given, known)

    def added(events: tuple[DemandEvent, ...]) -> tuple[DemandEvent, ...]:
        for other, source in _sourced(events, known):
            if occasion(other) == occasion(event):
                where = "in the catalog" if source == "catalog" else "already"
                raise BadInputError(f"{name} at {start} is announced {where}: remove that first")
        return (*events, event)

    _change(folder, added, as_json=as_json)
    if as_json:
        say({"event": _document(event, "announced"), "models_checked": known is not None})
        return
    typer.echo(f"announced: {_sentence(event, _zone(known))}")
    if known is None:
        typer.echo(
            f"no gateway runs over {folder}, so models were not looked up, and times without an "
            "offset are UTC; name a --catalog to have both",
            err=True,
        )


@app.command("list")
def list_(
    catalog: CatalogFile = None, state_dir_: StateDir = None, as_json: AsJson = False
) -> None:
    """Show what is announced, here and in the catalog, the oldest first."""
    from prewarm.event_file import EventFileError, read_events

    folder = state_dir.named(state_dir_)
    known = _catalog(folder, catalog, as_json=as_json)
    try:
        events = read_events(folder)
    except EventFileError as error:
        fail(str(error), as_json=as_json, code=FAILED)
    rows = sorted(_sourced(events, known), key=lambda row: (row[0].start_us, row[0].name))
    if as_json:
        say({"events": [_document(event, source) for event, source in rows]})
    else:
        _print(rows, _zone(known))


@app.command("remove")
def remove(
    name: Name,
    start: Annotated[str, typer.Option(help="Only the occasion that starts then.")] = "",
    past: Annotated[bool, typer.Option("--past", help="Also those that are over.")] = False,
    catalog: CatalogFile = None,
    state_dir_: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Take an announcement back. What is over stays, as forecasts learn from it."""
    from gateway.event_input import moment_of

    folder = state_dir.writable_folder(state_dir_)
    known = _catalog(folder, catalog, as_json=as_json)
    start_us = moment_of(start, "--start", _zone(known)) if start else None
    gone: list[DemandEvent] = []

    def without(events: tuple[DemandEvent, ...]) -> tuple[DemandEvent, ...]:
        gone.extend(_chosen(events, name, start_us, known))
        over = [] if past else [event for event in gone if event.end_us <= wall_us()]
        gone[:] = [event for event in gone if event not in over]
        if not gone:
            raise BadInputError(
                f"{name} is over, and forecasts learn from it; with --past it is removed all the "
                "same"
            )
        return tuple(event for event in events if event not in gone)

    _change(folder, without, as_json=as_json)
    if as_json:
        say({"removed": [_document(event, "announced") for event in gone]})
        return
    for event in gone:
        typer.echo(f"removed: {_sentence(event, _zone(known))}")


def _catalog(folder: Path, file: Path | None, *, as_json: bool) -> Catalog | None:
    """The one that was named, else the running gateway's, else none."""
    from gateway.catalog_cli import good_catalog, running_catalog

    if file is not None:
        return good_catalog(file, as_json=as_json)
    card = state_dir.read_card(folder)
    return None if card is None else running_catalog(card, as_json=as_json)


def _zone(known: Catalog | None) -> str:
    return (known.forecast if known else ForecastPolicy()).time_zone


def _sourced(
    events: Iterable[DemandEvent], known: Catalog | None
) -> Iterable[tuple[DemandEvent, str]]:
    yield from ((event, "announced") for event in events)
    if known is not None:
        yield from ((event, "catalog") for event in known.forecast.events)


def _change(folder: Path, change: "Change", *, as_json: bool) -> None:
    from prewarm.event_file import EventFileError, change_events

    try:
        change_events(folder, change, wall_us())
    except EventFileError as error:
        fail(str(error), as_json=as_json, code=FAILED)


def _chosen(
    events: Iterable[DemandEvent], name: str, start_us: int | None, known: Catalog | None
) -> list[DemandEvent]:
    """The occasions of this name, or the one that starts then."""
    named = [event for event in events if event.name == name]
    if not named:
        raise BadInputError(_unknown_name(name, events, known))
    then = [event for event in named if start_us in (None, event.start_us)]
    if not then:
        starts = ", ".join(_local(event.start_us, _zone(known)) for event in named)
        raise BadInputError(f"--start: no {name} starts then, but at {starts}")
    return then


def _unknown_name(name: str, events: Iterable[DemandEvent], known: Catalog | None) -> str:
    from placement.catalog_problems import closest

    if known is not None and any(event.name == name for event in known.forecast.events):
        return f"{name} stands in the catalog: remove it there, and `warmtide catalog apply`"
    near = closest(name, {event.name for event in events})
    guess = f"did you mean {near}?" if near else "`warmtide events list` shows what there is"
    return f"no event is called {name}: {guess}"


def _phase(event: DemandEvent) -> str:
    now_us = wall_us()
    if event.end_us <= now_us:
        return "over"
    return "on" if event.start_us <= now_us else "to come"


def _document(event: DemandEvent, source: str) -> dict[str, Any]:
    """Times in UTC, seconds in the names of numbers."""
    return {
        "name": event.name,
        "models": list(event.models),
        "start": _local(event.start_us, "UTC"),
        "end": _local(event.end_us, "UTC"),
        "uplift": None if event.expected_per_s else event.uplift,
        "expected_per_s": event.expected_per_s or None,
        "source": source,
        "phase": _phase(event),
    }


def _local(at_us: int, zone: str) -> str:
    """ISO 8601 with the offset of the zone at that time."""
    moment = datetime.fromtimestamp(at_us // US, UTC).astimezone(ZoneInfo(zone))
    return moment.isoformat()


def _asked(event: DemandEvent) -> str:
    if event.expected_per_s:
        return f"{event.expected_per_s:g}/s"
    return f"{event.uplift:g} times the usual"


def _sentence(event: DemandEvent, zone: str) -> str:
    whose = ", ".join(event.models) or "all models"
    start, end = _local(event.start_us, zone), _local(event.end_us, zone)
    return f"{event.name}, {start} to {end}: {_asked(event)} of {whose}"


def _print(rows: list[tuple[DemandEvent, str]], zone: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title_justify="left")
    for heading in ("event", "models", f"start ({zone})", "end", "what is asked", "from", "phase"):
        table.add_column(heading, no_wrap=heading != "models")
    for event, source in rows:
        start, end = _local(event.start_us, zone), _local(event.end_us, zone)
        whose = ", ".join(event.models) or "all"
        table.add_row(event.name, whose, start, end, _asked(event), source, _phase(event))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    console.print(table if rows else "nothing is announced: `warmtide events add` announces")
