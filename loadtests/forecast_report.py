"""The report of the forecasts: every trace, measured costs, Markdown and plots. An edge.

`make forecast-report`, or `python -m loadtests.forecast_report --report FILE`; the plots lie in a
folder beside the file. `--quick` runs two short traces. Each trace has a process of its own.
"""

import argparse
import os
import pickle
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from gateway.progress import Silent
from loadtests.drawing import svg
from loadtests.forecasts.cases import CASES, QUICK, STAND_IN, Case
from loadtests.forecasts.costing import measured
from loadtests.forecasts.data import Source
from loadtests.forecasts.findings import LAST_VALUE
from loadtests.forecasts.html import small_png
from loadtests.forecasts.plots import ratios
from loadtests.forecasts.report import Facts, markdown
from loadtests.forecasts.running import Given, read, tried_on
from loadtests.forecasts.trails import worst_weeks
from loadtests.forecasts.verdicts import Outcome
from loadtests.machine import cpu_name
from loadtests.study.pool import Told, each_in_a_process
from loadtests.trace_places import GENERATED, traces_folder

DRAWN_BINS = 400
OVERVIEW = "ratios.svg"


class Task(NamedTuple):
    """One trace to be run in a process, and where its outcome goes."""

    case: Case
    file: str
    plot: Path
    into: Path


class Asked(NamedTuple):
    report: Path
    quick: bool
    jobs: int
    traces: Path | None


def main() -> int:
    asked = _asked()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as after Ctrl-C
    plots = asked.report.with_suffix("")
    plots.mkdir(parents=True, exist_ok=True)
    cases = [case for case in CASES if not asked.quick or case.title in QUICK]
    folder = traces_folder(asked.traces, Path.cwd())
    here = [case for case in cases if (folder / case.file).is_file()]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            tasks = _tasks(here, folder, plots, Path(scratch))
            outcomes, failed = _run(tasks, asked.jobs)
        _overview(outcomes, plots / OVERVIEW)
        costs = None if asked.quick else measured()
    except KeyboardInterrupt:
        sys.stderr.write("forecast-report: stopped; nothing was written\n")
        return 1
    missing = [case.title for case in cases if case not in here]
    asked.report.write_text(markdown(outcomes, costs, _facts(asked, missing, failed)), "utf-8")
    sys.stderr.write(f"forecast-report: wrote {asked.report}\n")
    return 1 if failed else 0


def _tasks(here: Sequence[Case], folder: Path, plots: Path, scratch: Path) -> list[Task]:
    """The longest first, so that the last one running is a short one."""
    files = {case: str(folder / case.file) for case in here} or {STAND_IN: GENERATED}
    return [
        Task(case, file, plots / f"{case.slug}.png", scratch / case.slug)
        for case, file in files.items()
    ]


def _run(tasks: Sequence[Task], jobs: int) -> tuple[list[Outcome], list[str]]:
    screen = Console(stderr=True)
    failed = []
    for ended in each_in_a_process(run_case, tasks, jobs, lambda *_: None):
        title = tasks[ended.place].case.title
        screen.print(f"forecast-report: {title}: {'failed' if ended.error else 'done'}")
        if ended.error:
            screen.print(ended.error, markup=False)
            failed.append(f"{title}: {ended.error.strip().splitlines()[-1]}")
    return list(_outcomes(tasks)), failed


def _outcomes(tasks: Sequence[Task]) -> Iterator[Outcome]:
    for task in tasks:
        if task.into.is_file():
            yield pickle.loads(task.into.read_bytes())  # our own child wrote it


def run_case(task: Task, _: Told) -> None:
    """One trace: a back-test, a plot of its busiest stream."""
    began_s = time.perf_counter()
    case = task.case
    source = Source(task.file)
    given = Given(source, case.horizons, case.score_from, case.streams, case.busiest, "", None)
    trial, trail, _told = tried_on(read(given), given, Silent(), keep=True)
    assert trail is not None, "it was asked for"
    task.plot.write_bytes(small_png(trial, trail, DRAWN_BINS))
    outcome = Outcome(
        case=case,
        trial=trial,
        table=trial.table,
        worst_weeks=worst_weeks(trail, trial),
        plot=f"{task.plot.parent.name}/{task.plot.name}",
        took_s=time.perf_counter() - began_s,
    )
    task.into.write_bytes(pickle.dumps(outcome))


def _overview(outcomes: Sequence[Outcome], path: Path) -> None:
    rows = [
        (
            f"{outcome.case.title}, {field.word}",
            field.against(field.best_simple),
            field.against(LAST_VALUE),
        )
        for outcome in outcomes
        for field in outcome.table
    ]
    path.write_text(svg(ratios(rows)), "utf-8")


def _facts(asked: Asked, missing: Sequence[str], failed: Sequence[str]) -> Facts:
    return Facts(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        version=version("warmtide"),
        command="make forecast-report" + (" QUICK=1" if asked.quick else ""),
        quick=asked.quick,
        overview=f"{asked.report.stem}/{OVERVIEW}",
        missing=missing,
        failed=failed,
    )


def _asked() -> Asked:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--report", type=Path, required=True, help="the file to write")
    parser.add_argument("--quick", action="store_true", help="two short traces, no costs")
    parser.add_argument("--jobs", type=int, default=0, help="traces at once; else one a core")
    parser.add_argument("--traces", type=Path, help="folder of public traces")
    given = parser.parse_args()
    jobs = given.jobs or len(os.sched_getaffinity(0))
    return Asked(report=given.report, quick=given.quick, jobs=jobs, traces=given.traces)


if __name__ == "__main__":
    sys.exit(main())
