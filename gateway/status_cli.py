"""`warmtide status`: a live table of models and nodes. An edge."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import state_dir
from gateway.progress import Silent, Steps, steps
from gateway.words import FAILED, fail, say

REFRESH_WALL_S = 1.0
WIDTH_PIPED = 140


def status(
    state_dir_: Annotated[Path | None, typer.Option("--state-dir")] = None,
    once: Annotated[bool, typer.Option(help="Print once instead of refreshing.")] = False,
    page: Annotated[
        bool, typer.Option(help="Print the status page's address, token included.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show models, their rungs and what waits for them; refreshes on a terminal."""
    from rich.console import Console
    from rich.live import Live

    folder = state_dir.named(state_dir_)
    card = state_dir.read_card(folder)
    if card is None:
        fail(state_dir.no_gateway(folder), as_json=as_json, code=FAILED)
    if page:
        address = f"{card.admin_url}/#{state_dir.admin_token(folder)}"
        say({"page": address}) if as_json else typer.echo(address)
        return
    with steps() as shown:
        document = fetch(card, shown, as_json=as_json)
    if as_json:
        say(document)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_PIPED)
    if once or not console.is_terminal:
        console.print(render(document, card))
        return
    with Live(render(document, card), console=console, screen=False) as live:
        try:
            while True:
                time.sleep(REFRESH_WALL_S)
                live.update(render(fetch(card, Silent(), as_json=False), card))
        except KeyboardInterrupt:
            return


def fetch(card: state_dir.Card, shown: Steps, *, as_json: bool) -> dict[str, Any]:
    """The admin port's status document."""
    from gateway.admin_client import ask

    return ask(card, "GET", "/status", shown, as_json=as_json)


def render(document: dict[str, Any], card: state_dir.Card) -> Any:
    """Two tables; times are trace times."""
    from rich.console import Group
    from rich.table import Table

    models = Table(
        title=f"{card.url}  (trace time x{document['time_scale']:g})", title_justify="left"
    )
    for heading, right in _HEADINGS:
        models.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for row in document["models"]:
        models.add_row(*_cells(row))
    nodes = Table(title="Nodes", title_justify="left")
    for heading in ("node", "alive", "GPU reserved GB", "host reserved GB", "replicas"):
        nodes.add_column(heading)
    for row in document["nodes"]:
        gpus = " ".join(
            f"{g['reserved_bytes'] / 1e9:.0f}/{g['hbm_bytes'] / 1e9:.0f}" for g in row["gpus"]
        )
        host = f"{row['host_reserved_bytes'] / 1e9:.0f}/{row['host_bytes'] / 1e9:.0f}"
        nodes.add_row(
            row["node"], "yes" if row["alive"] else "NO", gpus, host, str(row["replicas"])
        )
    parts: list[Any] = [models, nodes]
    parts += [f"wants: {w['model_id']}: {w['why']}" for w in document["wants"]]
    return Group(*parts)


_HEADINGS = (
    ("model", False),
    ("rung", False),
    ("serving", True),
    ("eta s", True),
    ("held", True),
    ("running", True),
    ("answered", True),
    ("refused", True),
    ("cut", True),
    ("cold", True),
    ("TTFT p50/p95/p99 ms", True),
)


def _cells(row: dict[str, Any]) -> list[str]:
    serving = row["lanes_ready"]
    eta = "-" if row["eta_ms"] is None else f"{row['eta_ms'] / 1000:.1f}"
    outcomes = row["outcomes"]
    ttft = "/".join("-" if v is None else f"{v:.0f}" for v in row["ttft_ms"].values())
    return [
        row["model"],
        row["rung"],
        str(serving),
        eta,
        str(row["held"]),
        str(row["in_flight"]),
        str(outcomes.get("answered", 0)),
        str(outcomes.get("refused", 0)),
        str(outcomes.get("cut", 0)),
        str(sum(row["cold_starts"].values())),
        ttft,
    ]
