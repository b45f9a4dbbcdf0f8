"""A whole study: tasks, cells, the document, the files it is asked to leave. An edge.

In: what was asked. Out: `Outcome`. Never: prints, apart from progress on the screen it is given.
"""

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console

from loadtests.errors import AskedError
from loadtests.study.asked import Options, Study, study
from loadtests.study.cache import Cells
from loadtests.study.cells import Cell
from loadtests.study.comparison import Done, Failure, run_cells
from loadtests.study.document import Document, document
from loadtests.telling import without_plots


class Outcome(NamedTuple):
    """The document, and sentences for whoever waited."""

    document: Document
    told: list[str]


def run_study(
    asked: Options,
    cache: Path | None,
    jobs: int | None,
    screen: Console,
    *,
    one: bool,
    html: Path | None = None,
    out: Path | None = None,
) -> Outcome:
    """Run what is not kept, and write what is asked for; files are checked before anything runs."""
    plots = _plots() if html or out else None
    for folder in (html.parent if html else None, out):
        if folder is not None:
            _folder(folder)
    found = study(asked, Path.cwd(), one=one)
    kept = Cells(cache)
    done = run_cells(found.tasks, kept, jobs or len(os.sched_getaffinity(0)), screen)
    document = _document(found, done)
    told = list(_failures(done.failures))
    if plots is not None:
        report = plots(document, [(cell, kept.sketch(task)) for task, cell in done.cells])
        for path in (html, out / "report.html" if out else None):
            if path is not None:
                path.write_text(report, "utf-8")
                told.append(f"wrote {path}")
    if out is not None:
        _write_out(out, document, [cell for _, cell in done.cells])
        told.append(f"wrote {out}/compare.json and cells.csv")
    return Outcome(document, told)


def _document(found: Study, done: Done) -> Document:
    return document(
        found.scenario.name,
        found.scenario.file.question,
        [cell for _, cell in done.cells],
        found.lengths,
        [f"{f.task.told()}: {f.why.strip().splitlines()[-1]}" for f in done.failures],
    )


def _failures(failures: Sequence[Failure]) -> Iterator[str]:
    """Which cells could not be run; the same reason is told whole only once."""
    known: set[str] = set()
    for failure in failures:
        if failure.why in known:
            yield f"{failure.task.told()} could not be run, as above"
        else:
            yield f"{failure.task.told()} could not be run:\n{failure.why.rstrip()}"
        known.add(failure.why)


def _plots() -> Callable[..., str]:
    """The report's writer, or why there is none here."""
    try:
        from loadtests.study.html import report_html
    except ModuleNotFoundError as error:
        raise without_plots(error) from None
    return report_html


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AskedError(
            f"{folder}: cannot be made: {error.strerror}; name another place"
        ) from None


def _write_out(out: Path, document: Document, cells: Sequence[Cell]) -> None:
    (out / "compare.json").write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    (out / "cells.csv").write_text(_as_csv(cells), "utf-8")


def _as_csv(cells: Sequence[Cell]) -> str:
    """Figures of all models together, a row for each cell."""
    rows = [_flat(msgspec.to_builtins(cell)) for cell in cells]
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(cell: dict[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in cell.items():
        if key in ("models", "level", "notes"):
            continue
        if isinstance(value, dict):
            flat.update({f"{key}_{name}": inner for name, inner in value.items()})
        else:
            flat[key] = value
    return flat
