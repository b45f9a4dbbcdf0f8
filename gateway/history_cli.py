"""`warmtide history`: what was asked of each model, from the store of a state directory. An edge.

In: command line, the history's file, beside a running gateway or without one. Out: a table, one
JSON document, or a counts file that `replay` and the forecasters read. Never: writes the store
(`import_cli` does).
"""

import csv
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway import state_dir
from gateway.import_cli import import_
from gateway.words import FAILED, BadInputError, fail, say
from placement.catalog_units import UnitError, parse_time_us
from placement.clock import wall_us

if TYPE_CHECKING:
    from prewarm.windows import HistoryRow

app = typer.Typer(help="The demand of the past: look at it, import it.", no_args_is_help=True)
app.command("import")(import_)

WIDTHS_S = {"10s": 10, "1min": 60, "5min": 300}
SHOWN_MAX = 60
US = 1_000_000

Width = Annotated[str, typer.Option(help=f"One of {', '.join(WIDTHS_S)}.")]
Last = Annotated[str, typer.Option(help="How far back, for example '2 h' or '7 d'.")]
StateDir = Annotated[Path | None, typer.Option("--state-dir")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("show")
def show(
    model: Annotated[str | None, typer.Argument(help="A model's id; default: all.")] = None,
    width: Width = "1min",
    last: Last = "1 h",
    state_dir_: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Show rows of the history, the newest last."""
    rows = _rows(state_dir_, model, width, last, as_json=as_json)
    if as_json:
        say({"rows": [msgspec.to_builtins(row) for row in rows]})
        return
    _print(rows)


@app.command("export")
def export(
    out: Annotated[Path | None, typer.Option(help="CSV file to write; default: stdout.")] = None,
    width: Width = "5min",
    last: Last = "400 d",
    state_dir_: StateDir = None,
) -> None:
    """Write requests per window as a counts file, a column a model; an empty cell is a hole."""
    rows = _rows(state_dir_, None, width, last, as_json=False)
    width_us = WIDTHS_S[width] * US
    if out is None:
        _write_counts(rows, width_us, sys.stdout)
        return
    if out.resolve().is_relative_to(state_dir.named(state_dir_)):
        raise BadInputError(f"--out {out}: is in the state directory; name a file outside of it")
    try:
        with out.open("w", newline="", encoding="utf-8") as file:
            _write_counts(rows, width_us, file)
    except OSError as error:
        raise BadInputError(f"--out {out}: {error.strerror}") from None


def _rows(
    state: Path | None, model: str | None, width: str, last: str, *, as_json: bool
) -> "list[HistoryRow]":
    from prewarm.history import NoHistoryError, read_rows

    if width not in WIDTHS_S:
        raise BadInputError(f"--width {width}: rows are {', '.join(WIDTHS_S)} wide")
    try:
        last_us = parse_time_us(last)
    except UnitError as error:
        raise BadInputError(f"--last {last}: {error}") from None
    folder = state_dir.named(state)
    card = state_dir.read_card(folder)
    path = state_dir.history_file(folder, None if card is None else card.time_scale)
    width_s = WIDTHS_S[width]
    try:
        now_us = wall_us()
        if state_dir.is_scaled(path):  # trace time runs ahead of the wall: "now" is the newest row
            newest = read_rows(path, width_s, model=model, newest=1)
            now_us = max([now_us, *(row.start_us for row in newest)])
        span = {"from_us": now_us - last_us, "to_us": now_us + 1}
        return list(read_rows(path, width_s, model=model, **span))
    except NoHistoryError as error:
        fail(f"{error}", as_json=as_json, code=FAILED)


def _print(rows: "list[HistoryRow]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title_justify="left")
    for heading in ("start (UTC)", "model"):
        table.add_column(heading, no_wrap=True)
    for heading in ("offered", "retries", "refused", "tokens in", "out", "concurrency", "covered"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows[-SHOWN_MAX:]:
        at = datetime.fromtimestamp(row.start_us / US, UTC)
        share = f"{row.covered_s / row.width_s:.0%}"
        spread = f"{row.conc_mean:.1f} (p95 {row.conc_p95}, max {row.conc_max})"
        counts = (row.offered, row.retries, row.refused, row.prompt_tokens, row.output_tokens)
        table.add_row(f"{at:%m-%d %H:%M:%S}", row.model, *map(str, counts), spread, share)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    console.print(table)
    if len(rows) > SHOWN_MAX:
        console.print(f"the last {SHOWN_MAX} of {len(rows)} rows; --json shows all")


def _write_counts(rows: "Iterable[HistoryRow]", width_us: int, file: IO[str]) -> None:
    """Windows that were not watched whole are holes, and so are those that are absent."""
    counts: dict[int, dict[str, Any]] = {}
    models: dict[str, None] = {}
    for row in rows:
        models.setdefault(row.model)
        whole = row.covered_s * US >= width_us * 0.999
        counts.setdefault(row.start_us, {})[row.model] = row.offered if whole else ""
    writer = csv.writer(file)
    writer.writerow(["t_s", *models])
    for start_us in range(min(counts, default=0), max(counts, default=-1) + 1, width_us):
        seen = counts.get(start_us, {})
        writer.writerow([start_us // US, *(seen.get(model, "") for model in models)])
