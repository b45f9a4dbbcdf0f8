"""What a person sees of a plan on the screen. An edge: it prints with rich.

In: an explained plan, a console. Out: a table of actions, wants, bars of GPUs before and after; in
80 columns, and with signs that need no colour. Never: computes a figure.
"""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtests.plans.asked import Asked
from loadtests.plans.bars import LEGEND, bar
from loadtests.plans.wording import (
    HEADS,
    action_rows,
    budget_lines,
    drawn,
    node_line,
    nothing_said,
    title,
    want_lines,
)
from placement.planning.explained import Explained
from placement.planning.pictured import GpuPicture, Stand

WIDTH_MAX = 160
STYLES = {
    Stand.SERVES: "green",
    Stand.STARTS: "bold cyan",
    Stand.DRAINS: "yellow",
    Stand.WARM: "magenta",
    Stand.PARKED: "blue",
    Stand.SHED: "blue",
    Stand.FAILED: "red",
}


def show(out: Console, asked: Asked, *, explain: bool, all_nodes: bool) -> None:
    found = asked.explained
    out.print(title(asked), style="bold")
    for note in asked.notes:
        out.print(note)
    out.print(nothing_said(found) or _table(found, explain=explain))
    for line in want_lines(found):
        out.print(line)
    if explain:
        _show_nodes(out, found, all_nodes=all_nodes)


def _table(found: Explained, *, explain: bool) -> Table:
    table = Table(*HEADS, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in table.columns[:2]:
        column.no_wrap = True
    for row in action_rows(found, explain=explain):
        table.add_row(*row)
    return table


def _show_nodes(out: Console, found: Explained, *, all_nodes: bool) -> None:
    pairs, more = drawn(found, all_nodes=all_nodes)
    width = (min(out.width, WIDTH_MAX) - 8) // 2
    out.print(f"{'':4}{'before':{width + 2}}after")
    for before, after in pairs:
        out.print(node_line(before, after), style="bold")
        for now, then in zip(before.gpus, after.gpus, strict=True):
            out.print(_gpu_line(now, then, width), no_wrap=True)
        for line in budget_lines(before, after):
            out.print(f"    {line}")
    if more:
        out.print(more)
    for line in LEGEND:
        out.print(line, style="dim")


def _gpu_line(before: GpuPicture, after: GpuPicture, width: int) -> Text:
    line = Text(f"{before.gpu_id:>2} |")
    for gpu, end in ((before, "| |"), (after, "|")):
        for piece in bar(gpu, width):
            style = STYLES.get(piece.stand, "dim") if piece.stand else "dim"
            line.append(piece.text, f"{style} reverse" if piece.marked else style)
        line.append(end)
    return line
