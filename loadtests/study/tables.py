"""What a person sees of a study: a row per policy and world, or one per model. An edge.

In: the document. Out: rich tables. Never: computes a figure; a table without evidence and world.
"""

from typing import Any

from rich import box
from rich.table import Table

from loadtests.study.document import Document

_COMPARED = (
    "policy",
    "cells",
    "P99 gain over reactive\nworst/median/best",
    "cells\nlost",
    "under\n100 ms",
    "TTFT\nin SLO",
    "GPU h\nserving",
    "idle HBM\nGB h",
)
_MODELS = (
    "model",
    "requests",
    "TTFT s\np50/p95/p99",
    "under\n100 ms",
    "TTFT\nin SLO",
    "ITL\nin SLO",
    "cold",
    "not\nserved",
)


def compared(document: Document, world: str) -> Table:
    """A row for each policy in one world, means over the cells that it ran."""
    table = _table(f"{document['scenario']} · {document['evidence']}, world {world}", _COMPARED)
    for policy, figures in document["summary"][world]["policies"].items():
        gain = figures["p99_ratio_to_reactive"]
        lost = gain["lost"] if gain else 0
        table.add_row(
            policy,
            str(figures["cells"]),
            _gain(gain),
            f"[bold red]{lost}[/]" if lost else ("0" if gain else "–"),
            *_shares(figures, "share_under_100ms", "share_under_slo"),
            *(f"{figures[key]:.2f}" for key in ("gpu_hours_serving", "hbm_gb_hours_idle")),
        )
    return table


def one_run(document: Document) -> Table:
    """A row for each model of a single cell, and one for all."""
    cell = document["cells"][0]
    title = f"{document['scenario']} · {document['evidence']}, world {cell['world']}"
    table = _table(f"{title} · {cell['policy']}, seed {cell['seed']}", _MODELS)
    for name, asked in cell["models"].items():
        table.add_row(*_asked(name, asked))
    table.add_section()
    table.add_row(*_asked("all", cell), style="bold")
    return table


def told_below(document: Document) -> list[str]:
    """What a reader should know beside the figures."""
    cells = document["cells"]
    lines = [f"asks: {document['question']}"]
    if not cells:
        return lines
    lines.append(f"demand: {document['demand']} · lengths: {document['lengths']}")
    level = cells[0]["level"]
    if level and all(cell["level"] == level for cell in cells):
        lines.append("scaled: " + ", ".join(f"{k} {_short(v)}" for k, v in level.items()))
    lines += cells[0]["notes"]
    return lines


def cell_told(cell: dict[str, Any]) -> list[str]:
    """One cell's costs, in words."""
    prewarm = cell["prewarm"]
    labels = [f"{key} {_short(cell[key])}" for key in ("rps", "alpha", "cv", "hour") if cell[key]]
    return [
        "cell: " + (", ".join(labels) or "the only one"),
        f"GPU hours: {cell['gpu_hours']:.2f} paid, {cell['gpu_hours_serving']:.2f} serving · "
        f"idle weights: {cell['hbm_gb_hours_idle']:.1f} GB h · loads: {cell['loads_gb']:.1f} GB · "
        f"evictions: {cell['evictions']}",
        f"prewarm: {prewarm['hits']} hits, {prewarm['misses']} misses, "
        f"{prewarm['wasted_gb']:.1f} GB wasted · {cell['held']} requests were held",
        f"digest {cell['digest'][:16]}",
    ]


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, name in enumerate(columns):
        justify, fold = ("right", "ellipsis") if place else ("left", "fold")
        table.add_column(name, justify=justify, no_wrap=bool(place), overflow=fold)  # type: ignore[arg-type]
    return table


def _asked(name: str, asked: dict[str, Any]) -> list[str]:
    ttft = asked["ttft_ms"]
    return [
        name,
        str(asked["requests"]),
        "/".join(_seconds(ttft[point]) for point in ("p50", "p95", "p99")),
        *_shares(asked, "share_under_100ms", "share_under_slo", "itl_attainment"),
        str(asked["cold"]),
        str(asked["requests"] - asked["served"]),
    ]


def _shares(figures: dict[str, Any], *keys: str) -> list[str]:
    values = [figures[key] for key in keys]
    return ["–" if value is None else f"{100 * value:.1f} %" for value in values]


def _gain(gain: dict[str, Any] | None) -> str:
    if gain is None:
        return "–"
    return " / ".join(f"{gain[key]:.3g}" for key in ("worst", "median", "best"))


def _seconds(ms: float | None) -> str:
    if ms is None:
        return "–"
    return f"{ms / 1000:.3f}" if ms < 10_000 else f"{ms / 1000:.1f}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
