"""`warmtide simulate`, `compare` and `scenarios`. An edge: the command line, the exit code.

In: options. Out: a table or one JSON document on stdout, everything else on stderr; exit 0 when
done, 1 when a cell could not be run or it was interrupted, 2 when the input was at fault.
Never: decides anything about a run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.completing import listed
from gateway.words import FAILED, say
from loadtests.scenarios.names import shipped
from loadtests.telling import option, screen, told

if TYPE_CHECKING:
    from rich.console import Console

    from loadtests.study.asked import Options
    from loadtests.study.document import Document
    from loadtests.study.studying import Outcome

STOPPED = "stopped as asked; cells that were done are kept, so ask again to go on"


def _scenarios(incomplete: str) -> list[str]:
    return [name for name in shipped() if name.startswith(incomplete)]


def _policies(incomplete: str) -> list[str]:
    from loadtests.baselines.plugins import policy_names

    return listed(incomplete, policy_names())


Scenario = Annotated[
    str,
    typer.Argument(
        help="One of `warmtide scenarios`, or a TOML file of one's own.", autocompletion=_scenarios
    ),
]
Policy = Annotated[str, option("Who decides.", autocompletion=_policies)]
Policies = Annotated[
    str,
    option("Who decides, to compare: a,b; the first cells are theirs.", autocompletion=_policies),
]
World = Annotated[str, option("Whose mechanism moves models: S (stock vLLM) or W (WarmServe's).")]
Worlds = Annotated[str, option("S, W, or both: S,W.")]
Seed = Annotated[int, option("Seed of every draw.", min=0)]
Seeds = Annotated[int, option("How many seeds, from 0 on, the same for every policy.", min=1)]
Rps = Annotated[str, option("Requests a second, instead of the scenario's.")]
Alpha = Annotated[str, option("Skew between models, instead of the scenario's.")]
CvOption = Annotated[str, option("Burstiness: 'original', or the CV of all gaps.")]
HourOption = Annotated[str, option("Hour of the day: busiest or quietest.")]
Size = Annotated[str, option("Another size that the scenario has, as 'full'.")]
Duration = Annotated[str, option("How long, as 2h; else the scenario's.")]
TraceFile = Annotated[
    Path | None,
    option("Counts (CSV, perhaps gzipped), or `generated`, in place of the scenario's."),
]
Traces = Annotated[Path | None, option("Folder of public traces.", envvar="WARMTIDE_TRACES")]
CacheFolder = Annotated[Path | None, option("Where cells are kept; else $XDG_CACHE_HOME/warmtide.")]
Jobs = Annotated[int | None, option("Cells at once; else one for each core.", min=1)]
Quick = Annotated[bool, option("A handful of cells, and the scenario's quick size.", "--quick")]
Html = Annotated[Path | None, option("Write a report with plots into this file.")]
Out = Annotated[Path | None, option("Write compare.json, cells.csv and report.html here.")]
FactsAt = Annotated[str, option("With --facts: of the first round from then on, as 10m.")]
FactsFile = Annotated[Path | None, option("Keep a round's facts, for `plan --explain`.")]
AsJson = Annotated[bool, option("One JSON document on stdout.", "--json")]


def simulate(
    scenario: Scenario,
    policy: Policy = "reactive",
    world: World = "S",
    seed: Seed = 0,
    rps: Rps = "",
    alpha: Alpha = "",
    cv: CvOption = "",
    hour: HourOption = "",
    size: Size = "",
    duration: Duration = "",
    trace: TraceFile = None,
    traces: Traces = None,
    cache: CacheFolder = None,
    html: Html = None,
    facts_at: FactsAt = "",
    facts: FactsFile = None,
    as_json: AsJson = False,
) -> None:
    """Run one policy on one cell of a scenario, and tell what it came to."""

    def options() -> "Options":
        from loadtests.study.asked import Options

        return Options(
            scenario=scenario, policies=policy, worlds=world, seeds=(seed,), rps=rps, alpha=alpha,
            cv=cv, hour=hour, size=size, duration=duration, trace=trace, traces=traces,
        )  # fmt: skip

    def work(console: "Console") -> "Outcome":
        from loadtests.study.facts import record_facts
        from loadtests.study.studying import run_study

        kept = record_facts(options(), facts_at, facts)
        outcome = run_study(options(), cache, 1, console, one=True, html=html)
        return outcome._replace(told=[*kept, *outcome.told])

    outcome = told("simulate", work, as_json=as_json, stopped=STOPPED)
    _answer(outcome, _show_one, as_json=as_json)


def compare(
    scenario: Scenario,
    policies: Policies = "reactive,warmserve,oracle",
    worlds: Worlds = "S,W",
    seeds: Seeds = 1,
    rps: Rps = "",
    alpha: Alpha = "",
    cv: CvOption = "",
    hour: HourOption = "",
    size: Size = "",
    duration: Duration = "",
    quick: Quick = False,
    trace: TraceFile = None,
    traces: Traces = None,
    cache: CacheFolder = None,
    jobs: Jobs = None,
    html: Html = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Run policies on the cells of a scenario, each with the same seeds, and compare them."""

    def options() -> "Options":
        from loadtests.study.asked import Options

        return Options(
            scenario=scenario, policies=policies, worlds=worlds, seeds=tuple(range(seeds)),
            rps=rps, alpha=alpha, cv=cv, hour=hour, size=size, duration=duration, quick=quick,
            trace=trace, traces=traces,
        )  # fmt: skip

    def work(console: "Console") -> "Outcome":
        from loadtests.study.studying import run_study

        return run_study(options(), cache, jobs, console, one=False, html=html, out=out)

    outcome = told("compare", work, as_json=as_json, stopped=STOPPED)
    _answer(outcome, _show_all, as_json=as_json)


def scenarios(as_json: AsJson = False) -> None:
    """The scenarios that come with Warmtide, and what each of them asks."""
    from rich.console import Console
    from rich.table import Table

    from loadtests.scenarios.files import load_scenario

    found = {name: " ".join(load_scenario(name).file.question.split()) for name in shipped()}
    if as_json:
        say([{"scenario": name, "question": question} for name, question in found.items()])
        return
    table = Table("scenario", "asks", box=None, padding=(0, 2, 0, 0))
    for name, question in found.items():
        table.add_row(name, question)
    Console().print(table)


def _answer(
    outcome: "Outcome", show: Callable[["Console", "Document"], None], *, as_json: bool
) -> None:
    if as_json:
        say(outcome.document)
    else:
        show(screen(), outcome.document)
    for line in outcome.told:
        typer.echo(f"warmtide: {line}", err=True)
    if outcome.document["failed"]:
        raise typer.Exit(FAILED)


def _show_one(out: "Console", document: "Document") -> None:
    from loadtests.study.tables import cell_told, one_run, told_below

    if document["cells"]:
        out.print(one_run(document))
        for line in cell_told(document["cells"][0]):
            out.print(line)
    for line in told_below(document):
        out.print(line)


def _show_all(out: "Console", document: "Document") -> None:
    from loadtests.study.tables import compared, told_below

    for world in document["summary"]:
        out.print(compared(document, world))
    for line in told_below(document):
        out.print(line)
