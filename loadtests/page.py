"""The frame of a report: one HTML file that needs nothing else, no network either. Pure.

In: a title, parts of a body. Out: HTML. Never: knows what is reported.
"""

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
svg { max-width: 100%; height: auto; }
.evidence { background: #fff3cd; border: 1px solid #e0c868; padding: .4rem .8rem; }
.wide { overflow-x: auto; max-height: 40rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th { position: sticky; top: 0; background: #fff; border-bottom: 2px solid #999; }
th, td { padding: .15rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.lost { background: #fbe3e0; } tr.lost td:last-child { color: #a11; font-weight: 600; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """The whole file. The body is HTML already, the title is text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"{''.join(body)}</body></html>\n"
    )


def part(title: str, svg: str) -> str:
    return f"<h3>{escape(title)}</h3>{svg}"


def table(heads: Sequence[str], rows: Iterable[tuple[Sequence[str], bool]]) -> str:
    """Rows of text, each with whether it is lost: that is marked."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(_row(cells, lost) for cells, lost in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>{body}</table></div>'


def _row(cells: Sequence[str], lost: bool) -> str:
    kind = ' class="lost"' if lost else ""
    return f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
