"""Cells of a comparison: those that are kept are read, the others run side by side. An edge.

In: tasks, a cache, how many at once. Out: `Done`: cells, and what failed. Never: prints a table.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from loadtests.study.cache import Cells
from loadtests.study.cells import Cell
from loadtests.study.pool import Told, each_in_a_process
from loadtests.study.running import run_task
from loadtests.study.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    task: Task
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Tasks that have a cell now, in order, each with it; and those that have none."""

    cells: list[tuple[Task, Cell]]
    failures: list[Failure]
    reused: int
    """How many were run before."""


@dataclass(frozen=True, slots=True)
class _Job:
    """The key is made before anything runs: sources that change meanwhile are not what runs."""

    task: Task
    key: str
    kept: Cells


def run_cells(tasks: Sequence[Task], kept: Cells, jobs: int, screen: Console) -> Done:
    """Every task's cell, from the cache or run now; each is kept as soon as it is there. Equal
    tasks are run once."""
    kept.ready()
    keys = [kept.key(task) for task in tasks]
    distinct = dict(zip(keys, tasks, strict=True))
    found = {key: kept.find(task) for key, task in distinct.items()}
    work = [_Job(task, key, kept) for key, task in distinct.items() if found[key] is None]
    reused = len(distinct) - len(work)
    failures = []
    with (
        _bar(len(distinct), reused, screen) as told,
        contextlib.closing(each_in_a_process(_run_and_keep, work, jobs, told)) as ends,
    ):
        for ended in ends:
            told(ended.place, 1.0)
            job = work[ended.place]
            cell = found[job.key] = None if ended.error else kept.find(job.task)
            if cell is None:
                why = ended.error or "its cell could not be kept; is the disk full?"
                failures.append(Failure(task=job.task, why=why))
    pairs = zip(tasks, map(found.get, keys), strict=True)
    return Done(
        cells=[(task, cell) for task, cell in pairs if cell is not None],
        failures=failures,
        reused=reused,
    )


def _run_and_keep(job: _Job, told: Told) -> None:
    cell, sketch = run_task(job.task, told)
    job.kept.keep(job.key, cell, sketch)


@contextlib.contextmanager
def _bar(total: int, reused: int, screen: Console) -> Iterator[Callable[[int, float], None]]:
    """A bar of cells, with the share done of those that run; on a terminal only."""
    if not screen.is_terminal:
        yield lambda *_: None
        return
    columns = (
        TextColumn("cells {task.completed:.1f}/{task.total}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    shares: dict[int, float] = {}
    note = TextColumn(f"{reused} run before" if reused else "")
    with Progress(*columns, note, console=screen) as bar:
        task = bar.add_task("", total=total, completed=reused)

        def told(place: int, share: float) -> None:
            shares[place] = share
            bar.update(task, completed=reused + sum(shares.values()))

        yield told
