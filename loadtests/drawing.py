"""What all plots share: style, colours, a figure as text or bytes. Pure: no window, no file.

In: matplotlib's figures. Out: SVG or PNG. Never: fetches anything: fonts are named, not embedded,
and the reader's own are used.
"""

import io

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Told apart by people who see few colours too: Okabe and Ito's palette, and a marker each.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "os^DvP*X"
PNG_DPI = 110

STYLED = mpl.rc_context(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "warmtide",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, drawn.subplots()


@STYLED
def svg(drawn: Figure) -> str:
    """Without a date and with fixed ids: equal figures are equal texts."""
    text = io.StringIO()
    drawn.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    found = text.getvalue()
    return found[found.index("<svg") :]


@STYLED
def png(drawn: Figure, dpi: int = PNG_DPI) -> bytes:
    """Without the name of the library's version: equal figures are equal bytes."""
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()
