"""A plan drawn: a picture, or one HTML file that fetches nothing. Pure.

In: an explained plan. Out: PNG or HTML by matplotlib. Never: a figure that the document lacks.
"""

from html import escape

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from loadtests.drawing import STYLED, png, svg
from loadtests.page import page, part, table
from loadtests.plans.asked import Asked
from loadtests.plans.wording import (
    HEADS,
    Pair,
    action_rows,
    budget_lines,
    drawn,
    node_line,
    nothing_said,
    title,
    want_lines,
)
from placement.planning.pictured import Block, GpuPicture, NodePicture, Stand

GB = 1e9
COLOURS = {
    Stand.SERVES: "#009E73",
    Stand.STARTS: "#56B4E9",
    Stand.DRAINS: "#E69F00",
    Stand.WARM: "#CC79A7",
    Stand.PARKED: "#0072B2",
    Stand.SHED: "#9ecae1",
    Stand.FAILED: "#D55E00",
    Stand.OTHER: "#999999",
}
HATCHES = {Stand.STARTS: "//", Stand.DRAINS: "\\\\", Stand.FAILED: "xx"}
"""Told apart without colour too."""
BEYOND = "#dddddd"
BOX, GAP = 0.86, 0.25
NAMED_SHARE_MIN = 0.045
"""Of a GPU: in a smaller block a name is illegible."""
NAME_CHARS_MAX = 11


def plan_png(asked: Asked, all_nodes: bool) -> bytes:
    pairs, more = drawn(asked.explained, all_nodes=all_nodes)
    return png(_figure(pairs, title(asked), more))


def plan_html(asked: Asked, all_nodes: bool) -> str:
    found = asked.explained
    pairs, more = drawn(found, all_nodes=all_nodes)
    rows = [(row, False) for row in action_rows(found, explain=True)]
    lines = [*asked.notes, nothing_said(found), *want_lines(found)]
    body = [
        f'<h1>A plan</h1><p class="evidence">{escape(title(asked))}</p>',
        _STYLE,
        table(HEADS, rows) if rows else "",
        *(f"<p>{escape(line)}</p>" for line in lines if line),
        part("GPUs before and after", svg(_figure(pairs, "", more))),
        "<h3>Host memory and links</h3><ul>",
        *(_budgets(before, after) for before, after in pairs),
        "</ul>",
    ]
    return page("A plan", body)


_STYLE = "<style>td { white-space: pre-line; text-align: left; vertical-align: top; }</style>"


def _budgets(before: NodePicture, after: NodePicture) -> str:
    lines = "".join(f"<br>{escape(line)}" for line in budget_lines(before, after))
    return f"<li>{escape(node_line(before, after))}{lines}</li>"


@STYLED
def _figure(pairs: list[Pair], heading: str, more: str) -> Figure:
    """A row for each node, a box for each GPU: on the left before the plan, on the right after."""
    rows = [pair for pair in pairs if pair[0].gpus]
    widest = max((len(before.gpus) for before, _ in rows), default=1)
    size = (max(2 * widest * BOX + 1.6, 7.0), 2.1 * max(len(rows), 1) + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(max(len(rows), 1), 2, squeeze=False)
    for (left, right), (before, after) in zip(places, rows, strict=False):
        _node(left, before, f"{before.node_id} before", widest)
        _node(right, after, f"{after.node_id} after", widest)
    if not rows:
        for axes in places[0]:
            axes.set_axis_off()
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5, frameon=False, fontsize=7)
    told = "\n".join(text for text in (heading, more) if text)
    if told:
        figure.suptitle(told, fontsize=8)
    return figure


def _node(axes: Axes, node: NodePicture, name: str, widest: int) -> None:
    for at, gpu in enumerate(node.gpus):
        _gpu(axes, at, gpu)
    axes.set_title(name, fontsize=8, loc="left")
    axes.set_xlim(-0.5, widest - 0.5)
    axes.set_ylim(0, max(gpu.hbm_bytes for gpu in node.gpus) / GB)
    axes.set_xticks(range(len(node.gpus)), [str(gpu.gpu_id) for gpu in node.gpus], fontsize=7)
    axes.set_ylabel("GB", fontsize=7)
    axes.tick_params(labelsize=7, length=2)


def _gpu(axes: Axes, at: int, gpu: GpuPicture) -> None:
    bottom = 0.0
    for block in gpu.blocks:
        if not block.bytes:
            continue
        height = block.bytes / GB
        edge = "#000000" if block.actions else "#ffffff"
        axes.bar(
            at, height, 1 - GAP, bottom, color=COLOURS[block.stand], edgecolor=edge,
            linewidth=1.4 if block.actions else 0.5, hatch=HATCHES.get(block.stand),
        )  # fmt: skip
        if block.bytes >= NAMED_SHARE_MIN * gpu.hbm_bytes or block.actions:
            axes.text(
                at, bottom + height / 2, _label(block), ha="center", va="center", fontsize=5.5,
                clip_on=True, bbox=_PAPER,
            )  # fmt: skip
        bottom += height
    beyond = (gpu.hbm_bytes - gpu.usable_bytes) / GB
    axes.bar(at, beyond, 1 - GAP, gpu.usable_bytes / GB, color=BEYOND, linewidth=0)
    axes.bar(
        at, gpu.hbm_bytes / GB, 1 - GAP, 0, fill=False, edgecolor="#555555", linewidth=0.7
    )  # the box


_PAPER = {"boxstyle": "round,pad=0.1", "facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.7}
"""Behind a name, so that it can be read on a hatch."""


def _label(block: Block) -> str:
    name = block.model_id
    short = name if len(name) <= NAME_CHARS_MAX else f"{name[: NAME_CHARS_MAX - 1]}…"
    return f"{short} *{','.join(map(str, block.actions))}" if block.actions else short


def _legend() -> list[Patch]:
    told = {Stand.STARTS: "on its way to serving", Stand.OTHER: "not of the catalog"}
    found = [
        Patch(facecolor=colour, hatch=HATCHES.get(stand), label=told.get(stand, stand.value))
        for stand, colour in COLOURS.items()
    ]
    return [
        *found,
        Patch(facecolor=BEYOND, label="the driver's"),
        Patch(fill=False, label="*n: action n"),
    ]
