"""What a person sees of a replay: a bar while it runs, a table at its end. An edge.

In: answers as they come, the report's document. Out: rich renderables. Never: computes a figure.
"""

import contextlib
from collections.abc import Callable, Iterator

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from loadtests.answers import Answer, Outcome
from loadtests.report import Document


@contextlib.contextmanager
def progress(total: int, screen: Console) -> Iterator[Callable[[Answer], None]]:
    """A bar of ended requests, on a terminal only."""
    if not screen.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=screen) as bar:
        task = bar.add_task("", total=total)
        bad = 0

        def on_answer(answer: Answer) -> None:
            nonlocal bad
            bad += answer.outcome is not Outcome.ANSWERED
            bar.update(task, advance=1, description=f"{bad} not answered" if bad else "")

        yield on_answer


_COLUMNS = (
    "model",
    "requests",
    "TTFT s\np50/p95/p99",
    "ITL ms\np50",
    "cold\nstarts",
    "held s\nmean/max",
    "refused",
    "cut",
    "lost",
)


def as_table(document: Document) -> Table:
    """A row per model and one for all, in trace time; fits a terminal of 80 columns."""
    label = document["evidence"] or "engines of unknown kind"
    table = Table(
        title=f"{document['trace']} · {label} · trace time, {document['time_scale']:g}x wall",
        caption=_caption(document),
        show_footer=True,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    total = _cells("all", document)
    for place, (name, footer) in enumerate(zip(_COLUMNS, total, strict=True)):
        table.add_column(
            name, footer, justify="right" if place else "left", no_wrap=bool(place), overflow="fold"
        )
    for model, figures in document["models"].items():
        other = figures["evidence"] not in (label, None)
        marked = f"{model} ({figures['evidence']})" if other else model
        table.add_row(*_cells(marked, figures))
    return table


def _cells(name: str, figures: Document) -> list[str]:
    ttft, held = figures["ttft_ms"], figures["held_ms"]
    lost = f"[bold red]{figures['lost']}[/]" if figures["lost"] else "0"
    return [
        name,
        str(figures["sent"]),
        "/".join(_seconds(ttft[point]) for point in ("p50", "p95", "p99")),
        _shown(figures["itl_ms"]["p50"]),
        str(figures["cold_starts"]),
        "/".join(_seconds(held[kind]) for kind in ("mean", "max")),
        str(figures["refused"]),
        str(figures["cut"]),
        lost,
    ]


def _caption(document: Document) -> str:
    span, late = document["slice"], document["client_late_ms"]
    of_refused = ", ".join(f"{n} x {code}" for code, n in document["refused_by_code"].items())
    lines = [
        f"{document['sent']} of the {span['requests']} requests from {span['start_s']:g} s on, "
        f"{span['duration_s']:g} s long · seed {document['seed']} · {document['source']}",
        f"sent {document['sent']} = answered {document['answered']} + refused "
        f"{document['refused']} + cancelled {document['cancelled']} + cut {document['cut']} + "
        f"lost {document['lost']}" + (f" · refused: {of_refused}" if of_refused else ""),
        f"arrivals: {document['arrivals']} · lengths: {document['lengths']}",
        f"this client sent p99 {_shown(late['p99'])} ms late in trace time "
        f"(its own delay and the gateway's count {document['time_scale']:g}-fold here)",
        *document["notes"],
    ]
    return "\n".join(lines)


def _seconds(ms: float | None) -> str:
    if ms is None:
        return "–"
    return f"{ms / 1000:.2f}" if ms < 10_000 else f"{ms / 1000:.1f}"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
