"""`warmtide plan`. An edge: the command line, the exit code. Light, as every help loads it.

In: options. Out: tables and a picture, or one JSON document, on stdout, everything else on stderr;
exit 0 when done, 1 when no gateway answers, 2 when the input was at fault. Never: decides anything
about a plan.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.completing import listed
from gateway.progress import steps
from gateway.words import fail, say
from loadtests.telling import option, screen, told

if TYPE_CHECKING:
    from rich.console import Console

    from loadtests.plans.asked import Asked


def _policies(incomplete: str) -> list[str]:
    from placement.planning.explained import PLANS

    return listed(incomplete, PLANS)


Snapshot = Annotated[
    Path | None,
    typer.Argument(help="A record of facts; without one the running gateway is asked for its own."),
]
Explain = Annotated[
    bool, option("Each reason in words, and the GPUs before and after.", "--explain")
]
Record = Annotated[Path | None, option("Keep the running gateway's facts in this file.")]
PolicyName = Annotated[
    str, option("Who decides; else who did when it was recorded.", autocompletion=_policies)
]
AllNodes = Annotated[
    bool, option("Draw all nodes of a large fleet, not only the first and those that change.")
]
StateDir = Annotated[Path | None, option("Of the running gateway.")]
Png = Annotated[Path | None, option("Draw the GPUs into this file.")]
Html = Annotated[Path | None, option("Write a report with the picture into this file.")]
AsJson = Annotated[bool, option("One JSON document on stdout.", "--json")]


def plan(
    snapshot: Snapshot = None,
    explain: Explain = False,
    record: Record = None,
    policy: PolicyName = "",
    all_nodes: AllNodes = False,
    state_dir: StateDir = None,
    png: Png = None,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """What a plan does and why, from a running gateway or from a record of its facts."""
    if record is not None:
        if snapshot is not None:
            fail("--record keeps what a running gateway says: name no SNAPSHOT", as_json=as_json)
        _record(record, state_dir, as_json=as_json)
        return

    def work(_: "Console") -> "tuple[Asked, list[str]]":
        from loadtests.forecasts.files import Files
        from loadtests.plans.asked import asked
        from loadtests.plans.asking import drawing, record_in, record_of_gateway

        files = Files(png, html)
        draws = files.drawing(drawing)
        if snapshot is None:
            with steps() as shown:
                record = record_of_gateway(state_dir, shown, as_json=as_json)
        else:
            record = record_in(snapshot)
        found = asked(record, policy, str(snapshot or "the running gateway"))
        return found, files.leave(draws, found, all_nodes) if draws else []

    found, lines = told("plan", work, as_json=as_json)
    if as_json:
        from loadtests.plans.document import document

        say(document(found))
    else:
        from loadtests.plans.showing import show

        show(screen(markup=False), found, explain=explain, all_nodes=all_nodes)
    for line in lines:
        typer.echo(f"warmtide: {line}", err=True)


def _record(path: Path, state_dir: Path | None, *, as_json: bool) -> None:
    def work(_: "Console") -> dict[str, object]:
        from loadtests.plans.asking import keep, record_of_gateway

        with steps() as shown:
            return keep(path, record_of_gateway(state_dir, shown, as_json=as_json))

    kept = told("plan", work, as_json=as_json)
    if as_json:
        say(kept)
    else:
        typer.echo(f"wrote {path}; `warmtide plan --explain {path}` explains it")
