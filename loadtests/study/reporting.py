"""What a written report of simulations is run with: its options, its runner, its end. An edge.

In: a command line, tasks. Out: cells, from the cache or run now; a file; an exit code. A report can
be stopped and goes on where it was. Never: knows what is reported.
"""

import argparse
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from loadtests.errors import AskedError
from loadtests.machine import cpu_name
from loadtests.study.asked import Options, Study, study
from loadtests.study.cache import Cells
from loadtests.study.cells import Cell
from loadtests.study.comparison import run_cells
from loadtests.study.parts import Facts
from loadtests.study.task import Task


class Asked(NamedTuple):
    """The knobs that every report has."""

    quick: bool
    seeds: int
    jobs: int
    cache: Path | None
    traces: Path | None


class Ran(NamedTuple):
    """What ran, each task with its cell, and sentences about what did not."""

    done: list[tuple[Task, Cell]]
    failed: list[str]

    @property
    def cells(self) -> list[Cell]:
        return [cell for _, cell in self.done]

    def of(self, tasks: Iterable[Task]) -> list[Cell]:
        """The cells of these very tasks."""
        chosen = {id(task) for task in tasks}
        return [cell for task, cell in self.done if id(task) in chosen]


class Runner:
    """Runs studies against one cache."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._kept = Cells(asked.cache)
        self._screen = Console(stderr=True)

    def study(
        self,
        scenario: str,
        policies: str,
        worlds: str,
        seeds: int,
        *,
        quick: bool = False,
        duration: str = "",
        trace: Path | None = None,
    ) -> Study:
        options = Options(
            scenario=scenario,
            policies=policies,
            worlds=worlds,
            seeds=tuple(range(seeds)),
            quick=quick,
            duration=duration,
            trace=trace,
            traces=self.asked.traces,
        )
        return study(options, Path.cwd(), one=False)

    def run(self, title: str, tasks: Sequence[Task]) -> Ran:
        self._screen.print(f"{title}: {len(tasks)} cells")
        done = run_cells(tasks, self._kept, self.asked.jobs, self._screen)
        failed = [f"{f.task.told()}: {f.why.strip().splitlines()[-1]}" for f in done.failures]
        return Ran(done.cells, failed)


def facts_of(grid: Study, asked: Asked) -> Facts:
    return Facts(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        version=version("warmtide"),
        demand=grid.tasks[0].traced.told,
        lengths=grid.lengths,
        quick=asked.quick,
    )


def options(about: str | None) -> argparse.ArgumentParser:
    """Those that every report has; a report adds its own."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--report", type=Path, required=True, help="the file to write")
    parser.add_argument("--quick", action="store_true", help="a handful of cells, one seed")
    parser.add_argument("--seeds", type=int, default=5, help="of the grid's main policies")
    parser.add_argument("--jobs", type=int, default=0, help="cells at once; else one a core")
    parser.add_argument("--cache", type=Path, help="where cells are kept")
    parser.add_argument("--traces", type=Path, help="folder of public traces")
    return parser


def asked_of(given: argparse.Namespace) -> Asked:
    return Asked(
        quick=given.quick,
        seeds=1 if given.quick else given.seeds,
        jobs=given.jobs or len(os.sched_getaffinity(0)),
        cache=given.cache,
        traces=given.traces,
    )


class Written(NamedTuple):
    text: str
    failed: Sequence[str]
    """What could not be run, as the text says too."""


def written(name: str, file: Path, write: Callable[[], Written]) -> int:
    """Write the report, and answer with the exit code; what goes wrong is a sentence."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as after Ctrl-C
    try:
        report = write()
    except AskedError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: stopped; cells that were done are kept, so ask again\n")
        return 1
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(report.text, "utf-8")
    sys.stderr.write(f"{name}: wrote {file}\n")
    return 1 if report.failed else 0
