"""`warmtide replay`. An edge: the command line, the screen, the exit code.

In: options. Out: a table or one JSON document on stdout, everything else on stderr; exit 0 when
done, 1 when something was lost or the fleet failed, 2 when the input was at fault.
Never: shows a key, decides anything about a trace.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway import completing
from gateway.state_dir import named
from gateway.words import BAD_INPUT, FAILED, fail, say
from loadtests.telling import option
from loadtests.trace_places import demo_trace, named_traces

if TYPE_CHECKING:
    from rich.console import Console

    from loadtests.report import Document
    from loadtests.workload import Asked

SPEED_MIN, SPEED_MAX = 0.1, 1000.0
DEMO_LIMIT, DEMO_DURATION = 600, "20m"
TABLE_WIDTH_MIN = 132


Trace = Annotated[
    str,
    typer.Argument(
        help="A trace file, or 'generated' for demand of our own.", autocompletion=named_traces
    ),
]
Url = Annotated[str, option("A running gateway; without it the replay starts its own fleet.")]
Speed = Annotated[
    float | None,
    option("Trace s per wall s; own fleet: 20 if not given.", min=SPEED_MIN, max=SPEED_MAX),
]
Models = Annotated[
    str, option("Deal streams to these models only: a,b.", autocompletion=completing.models)
]
Mapped = Annotated[
    list[str] | None,
    option("stream=model; repeatable.", "--map", autocompletion=completing.mapped),
]
Limit = Annotated[int | None, option("Thin the slice at random to so many requests.", min=1)]
Start = Annotated[str, option("Start of the slice from the trace's, as 8d; else the busiest.")]
Duration = Annotated[str, option("Length of the slice, as 20m; else 1h.")]
Seed = Annotated[int, option("Seed of every draw.")]
CancelShare = Annotated[float, option("Share of clients that leave early.", min=0, max=1)]
PromptMax = Annotated[int, option("Longest prompt asked for.", "--prompt-tokens-max", min=1)]
OutputMax = Annotated[int, option("Longest answer asked for.", "--output-tokens-max", min=1)]
CatalogFile = Annotated[Path | None, option("Catalog of the own fleet.")]
KeyFile = Annotated[Path | None, option("File (mode 0600) with the API key.")]
AdminUrl = Annotated[str, option("Its admin port; else the one noted in --state-dir.")]
StateDir = Annotated[Path | None, option("Where the running gateway keeps its state.")]
Traces = Annotated[
    Path | None, option("Folder of public traces, for --demo.", envvar="WARMTIDE_TRACES")
]
Demo = Annotated[bool, option("About a minute of a real trace, if one is at hand.", "--demo")]
AsJson = Annotated[bool, option("One JSON document on stdout.", "--json")]


def replay(
    trace: Trace = "",
    url: Url = "",
    speed: Speed = None,
    models: Models = "",
    mapped: Mapped = None,
    limit: Limit = None,
    start: Start = "",
    duration: Duration = "",
    seed: Seed = 0,
    cancel_share: CancelShare = 0.0,
    prompt_max: PromptMax = 1024,
    output_max: OutputMax = 512,
    catalog: CatalogFile = None,
    api_key_file: KeyFile = None,
    admin_url: AdminUrl = "",
    state_dir: StateDir = None,
    traces: Traces = None,
    demo: Demo = False,
    as_json: AsJson = False,
) -> None:
    """Send a trace's requests through the endpoint, each at its time; tell what became of them."""
    from loadtests.session import Aim, run

    if demo:
        trace = trace or demo_trace(traces, Path.cwd())
        limit, duration = limit or DEMO_LIMIT, duration or DEMO_DURATION

    def asked() -> "Asked":
        from loadtests.arrivals import Caps
        from loadtests.workload import Asked, named_models

        return Asked(
            start=start or None,
            duration=duration or None,
            limit=limit,
            models=tuple(name.strip() for name in models.split(",") if name.strip()),
            named=named_models(mapped or ()),
            seed=seed,
            caps=Caps(prompt_max, output_max),
        )

    def aim() -> Aim:
        return Aim(
            url=url or None,
            admin_url=admin_url or None,
            state_dir=named(state_dir),
            catalog=catalog,
            speed=speed,
            api_key=key_from(api_key_file),
            cancel_share=cancel_share,
        )

    _told(lambda screen: run(_named(trace), asked(), aim(), screen), as_json=as_json)


def _told(work: "Callable[[Console], Document]", *, as_json: bool) -> None:
    """Do the work and print its document; what went wrong becomes a sentence and an exit code."""
    import asyncio

    from rich.console import Console

    from loadtests.answers import Outcome
    from loadtests.errors import AskedError
    from loadtests.fleet_process import FleetError
    from placement.catalog_problems import CatalogError
    from prewarm.traces.records import TraceError

    try:
        document = work(Console(stderr=True))
    except (AskedError, TraceError, CatalogError) as error:
        fail(f"replay: {error}", as_json=as_json, code=BAD_INPUT)
    except FleetError as error:
        code = BAD_INPUT if error.bad_input else FAILED
        fail(f"replay: {error}", as_json=as_json, code=code)
    except (KeyboardInterrupt, asyncio.CancelledError):
        fail("replay: stopped before the end, as asked", as_json=as_json, code=FAILED)
    if as_json:
        say(document)
    else:
        _show(document)
    if document[Outcome.LOST]:
        raise typer.Exit(FAILED)


def _show(document: "Document") -> None:
    """The table on stdout; into a file or a pipe it keeps its whole width."""
    from rich.console import Console

    from loadtests.screen import as_table

    out = Console()
    if not out.is_terminal:
        out = Console(width=max(out.width, TABLE_WIDTH_MIN))
    out.print(as_table(document))


def _named(trace: str) -> str:
    from loadtests.errors import AskedError

    if not trace:
        raise AskedError("name a trace file, or 'generated', or use --demo")
    return trace


def key_from(path: Path | None) -> str:
    """The API key from its file, which must be nobody else's to read."""
    from loadtests.errors import AskedError
    from loadtests.private_file import private_text

    if path is None:
        return ""
    key = private_text(path, "--api-key-file").strip()
    if not key or not key.isprintable() or " " in key:
        raise AskedError(f"--api-key-file {path}: must hold one key on one line")
    return key
