"""`warmtide catalog`: check a file, print the schema. An edge.

In: command line. Out: a table or one JSON document on stdout, problems on stderr; exit 0 when the
file is good, 2 when it is not. Never: changes a running fleet's catalog without being told to.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from gateway import state_dir
from gateway.admin_client import ask
from gateway.words import fail, say
from placement.catalog import Catalog, ModelSpec, NodeSpec
from placement.catalog_file import CatalogError, json_schema, load_catalog
from placement.catalog_units import human_bytes, human_time
from placement.edges import climb_us, footprint_bytes, host_bytes
from placement.snapshot import Rung, WeightsAt

app = typer.Typer(help="Check catalogs.", no_args_is_help=True)

BAD_INPUT = 2
WIDTH_MIN = 100
"""Narrower, and names of models are cut; a pipe would get 80."""


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="A catalog: one YAML file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Say whether a catalog is good; if not, everything that is wrong with it."""
    try:
        catalog = load_catalog(file)
    except CatalogError as error:
        report_problems(error, as_json=as_json)
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        typer.echo(json.dumps({"ok": True, "file": str(file), **summary(catalog)}))
        return
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH_MIN)
    for table in (models_table(catalog), nodes_table(catalog)):
        if table.row_count:
            console.print(table)
    typer.echo(f"{file} is good: version {catalog.version}")


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of catalogs, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command("apply")
def apply(
    file: Annotated[Path, typer.Argument(help="A catalog: one YAML file.")],
    state_dir_: Annotated[
        Path | None, typer.Option("--state-dir", help="Of the gateway to change.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Give a running gateway a changed catalog; no request is dropped."""
    try:
        load_catalog(file)
        text = file.read_text("utf-8")
    except CatalogError as error:
        report_problems(error, as_json=as_json)
        raise typer.Exit(BAD_INPUT) from None
    folder = state_dir.folder_of(state_dir_)
    card = state_dir.read_card(folder)
    if card is None:
        fail(
            f"no gateway runs over {folder}: start one with `warmtide up`", as_json=as_json, code=1
        )
    answer = ask(card, "POST", "/catalog", as_json=as_json, text=text, name=str(file))
    if as_json:
        say({"ok": True, **answer})
        return
    kinds = ("added", "changed", "removed")
    told = [f"{kind}: {', '.join(answer[kind])}" for kind in kinds if answer[kind]]
    told += [kind for kind in ("tenants", "policy") if answer[f"{kind}_changed"]]
    typer.echo("\n".join([f"catalog {answer['version']} is in force", *(told or ["no change"])]))


def report_problems(error: CatalogError, *, as_json: bool) -> None:
    """All problems, for a machine on stdout or for a person on stderr."""
    if as_json:
        problems = [msgspec.to_builtins(problem) for problem in error.problems]
        typer.echo(json.dumps({"ok": False, "problems": problems}))
        return
    for problem in error.problems:
        typer.echo(str(problem), err=True)


def summary(catalog: Catalog) -> dict[str, Any]:
    """What a script may want to know of a good catalog."""
    return {
        "version": catalog.version,
        "time_scale": catalog.time_scale,
        "models": [_model_row(spec) for spec in catalog.models],
        "nodes": [
            {
                "id": node.id,
                "gpus": node.gpus,
                "gpu": node.gpu_type,
                "hbm_bytes": node.hbm_bytes,
                "host_bytes": node.host_bytes,
            }
            for node in catalog.nodes
        ],
        "tenants": [tenant.id for tenant in catalog.tenants],
    }


def _model_row(spec: ModelSpec) -> dict[str, Any]:
    on_gpu = spec.on_gpu
    return {
        "id": spec.id,
        "engine": spec.engine.value,
        "names": [*spec.aliases, *(adapter.id for adapter in spec.adapters)],
        "tasks": [task.value for task in spec.tasks],
        "gpus": spec.gpus if on_gpu else 0,
        "footprint_bytes": footprint_bytes(spec) if on_gpu else 0,
        "parked_host_bytes": host_bytes(spec, Rung.PARKED) if on_gpu else 0,
        "cold_start_us": climb_us(spec, WeightsAt.HOST) if on_gpu else 0,
        "promotion_us": climb_us(spec, Rung.PARKED) if on_gpu else 0,
    }


def models_table(catalog: Catalog) -> Table:
    """Aliases and adapters stand indented under the model that serves them."""
    table = Table(title="Models", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("id", "engine"):
        table.add_column(heading, no_wrap=True)
    for heading in ("GPUs", "on each", "cold start", "from parked"):
        table.add_column(heading, justify="right", no_wrap=True)
    for spec in catalog.models:
        row = _model_row(spec)
        cells = ["-"] * 4
        if spec.on_gpu:
            cells = [
                str(spec.gpus),
                human_bytes(row["footprint_bytes"]),
                human_time(round(row["cold_start_us"], -5)),
                human_time(round(row["promotion_us"], -4)),
            ]
        names = "\n".join([spec.id, *(f"  {name}" for name in row["names"])])
        table.add_row(names, spec.engine.value, *cells)
    return table


def nodes_table(catalog: Catalog) -> Table:
    table = Table(title="Nodes", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("id", "GPUs", "each", "host memory", "weights at start"):
        table.add_column(heading)
    for node in catalog.nodes:
        table.add_row(node.id, *_node_cells(node))
    return table


def _node_cells(node: NodeSpec) -> tuple[str, str, str, str]:
    each = human_bytes(node.hbm_bytes) if node.gpus else "-"
    gpus = f"{node.gpus} × {node.gpu_type}" if node.gpus else "none"
    return gpus, each, human_bytes(node.host_bytes), "host" if node.preloaded else "disk"
