"""Values that a shell completes: fleets, models, streams dealt to models. An edge.

In: what is typed so far. Out: what it may become; nothing where that cannot be told, and then the
shell offers files. Never: fails, prints, starts anything.
"""

from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

import typer

from gateway import state_dir
from gateway.plugins import FLEETS


def fleets(incomplete: str) -> list[str]:
    """Fleets that are installed."""
    names = sorted({entry.name for entry in entry_points(group=FLEETS)})
    return [name for name in names if name.startswith(incomplete)]


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    return listed(incomplete, _model_ids(ctx))


def listed(incomplete: str, names: Iterable[str]) -> list[str]:
    """`a,b`: the last of a list of names, none of them twice."""
    before, comma, last = incomplete.rpartition(",")
    taken = set(before.split(","))
    return [
        f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in taken
    ]


def mapped(ctx: typer.Context, incomplete: str) -> list[str]:
    """`stream=model`: the model; streams are only known to the trace."""
    stream, equals, begun = incomplete.partition("=")
    if not equals:
        return []
    return [f"{stream}={name}" for name in _model_ids(ctx) if name.startswith(begun)]


def _model_ids(ctx: typer.Context) -> list[str]:
    """Of the catalog named so far, else of the running gateway, else of the shipped one."""
    from placement.catalog_file import CatalogError, load_catalog

    try:
        return [spec.id for spec in load_catalog(_catalog_of(ctx)).models]
    except (CatalogError, OSError):
        return []


def _catalog_of(ctx: typer.Context) -> Path:
    named = ctx.params.get("catalog")
    if named:
        return Path(str(named))
    folder = ctx.params.get("state_dir") or ctx.params.get("state_dir_")
    card = state_dir.read_card(state_dir.named(Path(str(folder)) if folder else None))
    return Path(card.catalog) if card else state_dir.shipped("local.yaml")
