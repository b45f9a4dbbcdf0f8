"""The report of a comparison: one HTML file that needs nothing else, no network either. Pure.

In: the document, cells with their sketches. Out: HTML. Never: a figure without its evidence and
world, a losing cell without its mark.
"""

from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean, geometric_mean

from loadtests.page import page, part, table
from loadtests.study.cells import Cell, Place
from loadtests.study.document import Document
from loadtests.study.plots import (
    Drawn,
    Point,
    colour_of,
    cost_against_waiting,
    gpu_timeline,
    rung_map,
    ttft_distributions,
)
from loadtests.study.sketch import Sketch
from loadtests.study.summary import BASELINE, Pair, pairs

Colours = Mapping[str, tuple[str, str]]
PLACES_DRAWN_MAX = 3
SAME_COST = 0.01
_HEADS = (
    "policy", "seed", "hour", "rps", "alpha", "cv", "p50 s", "p95 s", "p99 s", "under 100 ms",
    "TTFT in SLO", "ITL in SLO", "requests", "not served", "GPU h paid", "GPU h serving",
    "idle GB h", "loads GB", "gain over reactive",
)  # fmt: skip


def report_html(document: Document, cells: Sequence[tuple[Cell, Sketch | None]]) -> str:
    """The whole file."""
    title = f"{document['scenario']}: {document['evidence']}"
    colours = colour_of(list(dict.fromkeys(cell.policy for cell, _ in cells)))
    worlds = sorted({cell.world for cell, _ in cells})
    body = [_head(document, worlds)]
    for world in worlds:
        inside = [(cell, sketch) for cell, sketch in cells if cell.world == world]
        body += _world(document, world, inside, colours)
    return page(title, body)


def _head(document: Document, worlds: Sequence[str]) -> str:
    failed = "".join(f"<li>{escape(one)}</li>" for one in document["failed"])
    notes = document["cells"][0]["notes"] if document["cells"] else ()
    told = f"demand: {document['demand']}; lengths: {document['lengths']}"
    return (
        f"<h1>{escape(document['scenario'])}</h1><p>{escape(document['question'])}</p>"
        f'<p class="evidence">Evidence: <b>{escape(document["evidence"])}</b>, '
        f"world {escape(' and '.join(worlds))} "
        "(S: stock vLLM, W: WarmServe's mechanism). Nothing here was measured on a GPU.</p>"
        f"<p>{escape('; '.join((told, *notes)))}</p>"
        + (f"<p>Not run:</p><ul>{failed}</ul>" if failed else "")
    )


def _world(
    document: Document, world: str, cells: list[tuple[Cell, Sketch | None]], colours: Colours
) -> list[str]:
    label = f"{document['evidence']}, world {world}"
    drawn = [Drawn(cell, sketch) for cell, sketch in cells if sketch is not None]
    figures = [cell for cell, _ in cells]
    parts = [
        f"<h2>World {escape(world)}</h2>",
        part(f"Time to first token ({label}), all cells", ttft_distributions(drawn, colours)),
    ]
    points, cost_name = cost_points(figures)
    if points:
        plot = cost_against_waiting(points, colours, cost_name)
        parts.append(part(f"Cost against waiting ({label}); dashed: the Pareto front", plot))
    for place in _places_drawn(figures):
        here = [one for one in drawn if one.cell.place == place]
        if here:
            told = f"{_place_told(here[0].cell)} ({label})"
            parts.append(part(f"GPUs over time: {told}", gpu_timeline(here, colours)))
            parts += [
                part(f"Rungs, {one.cell.policy}: {told}", rung_map(one))
                for one in here
                if one.sketch.at_s
            ]
    parts.append(f"<h3>Cells ({escape(label)})</h3>{_table(figures)}")
    return parts


def cost_points(cells: Sequence[Cell]) -> tuple[dict[str, Point], str]:
    """Means over the places that every policy ran. On a fixed cluster all pay for the same nodes,
    so there GPUs held by serving replicas are the cost."""
    policies = list(dict.fromkeys(cell.policy for cell in cells))
    places = [{c.place for c in cells if c.policy == policy} for policy in policies]
    common = set.intersection(*places) if places else set()
    paid = [c.gpu_hours for c in cells if c.place in common]
    fixed = bool(paid) and max(paid) - min(paid) <= SAME_COST * max(paid)
    points = {}
    for policy in policies:
        own = [c for c in cells if c.policy == policy and c.place in common and c.ttft_ms.p99]
        if own:
            costs = [c.gpu_hours_serving if fixed else c.gpu_hours for c in own]
            points[policy] = Point(fmean(costs), geometric_mean([c.ttft_ms.p99 or 1 for c in own]))
    return points, "GPU hours serving" if fixed else "GPU hours paid"


def _places_drawn(cells: Sequence[Cell]) -> list[Place]:
    """The first place, and those of the largest and the smallest gain over reactive."""
    compared = [
        pair
        for policy in dict.fromkeys(cell.policy for cell in cells)
        if policy != BASELINE
        for pair in pairs(cells, policy, BASELINE)
        if pair.ratio is not None
    ]
    compared.sort(key=lambda pair: pair.ratio or 0.0)
    places = [cells[0].place] + [pair.cell.place for pair in (compared[-1:] + compared[:1])]
    return list(dict.fromkeys(places))[:PLACES_DRAWN_MAX]


def _place_told(cell: Cell) -> str:
    labels = [(key, getattr(cell, key)) for key in ("rps", "alpha", "cv", "hour")]
    return ", ".join(
        f"{key} {value}" for key, value in [*labels, ("seed", cell.seed)] if value is not None
    )


def _table(cells: Sequence[Cell]) -> str:
    beside = {
        policy: {pair.cell.place: pair for pair in pairs(cells, policy, BASELINE)}
        for policy in dict.fromkeys(cell.policy for cell in cells)
    }
    return table(_HEADS, (_row(cell, beside[cell.policy].get(cell.place)) for cell in cells))


def _row(cell: Cell, beside: Pair | None) -> tuple[list[str], bool]:
    gain = beside.ratio if beside is not None else None
    lost = gain is not None and gain < 1
    told = "–" if gain is None else f"{gain:.3g}×" + (" loses" if lost else "")
    values = [
        cell.policy,
        str(cell.seed),
        *(_shown(value) for value in (cell.hour, cell.rps, cell.alpha, cell.cv)),
        *(_seconds(ms) for ms in (cell.ttft_ms.p50, cell.ttft_ms.p95, cell.ttft_ms.p99)),
        *(_share(s) for s in (cell.share_under_100ms, cell.share_under_slo, cell.itl_attainment)),
        str(cell.requests),
        str(cell.requests - cell.served),
        *(f"{cost:.2f}" for cost in (cell.gpu_hours, cell.gpu_hours_serving)),
        *(f"{cost:.1f}" for cost in (cell.hbm_gb_hours_idle, cell.loads_gb)),
        told,
    ]
    return values, lost


def _shown(value: object) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _seconds(ms: float | None) -> str:
    return "–" if ms is None else f"{ms / 1000:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
