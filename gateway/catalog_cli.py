"""`warmtide catalog`: check a file, show all of it, print the schema, change a running gateway's.
An edge.

In: command line. Out: a table, YAML or one JSON document on stdout, problems on stderr; exit 0 when
the file is good, 2 when it is not. Never: changes a running fleet's catalog without being told to.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway import state_dir
from gateway.words import BAD_INPUT, FAILED, fail, say

if TYPE_CHECKING:
    from placement.catalog import Catalog
    from placement.catalog_file import CatalogError

app = typer.Typer(help="Check, show and apply catalogs.", no_args_is_help=True)

StateDir = Annotated[Path | None, typer.Option("--state-dir", help="Of the running gateway.")]
WIDTH_MIN = 100
"""Narrower, and names of models are cut; a pipe would get 80."""


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="A catalog: one YAML file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Say whether a catalog is good; if not, everything that is wrong with it."""
    from rich.console import Console

    from gateway.catalog_tables import models_table, nodes_table, summary

    catalog = good_catalog(file, as_json=as_json)
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
    from placement.catalog_file import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command("show")
def show(
    file: Annotated[Path | None, typer.Argument(help="A catalog: one YAML file.")] = None,
    running: Annotated[bool, typer.Option("--running", help="What is in force now.")] = False,
    state_dir_: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")] = False,
) -> None:
    """Print a catalog with every default filled in, in bytes and microseconds."""
    if (file is None) != running:
        fail("name a catalog file, or say --running", as_json=as_json)
    if file is None:
        document = _asked(state_dir_, "GET", as_json=as_json)
    else:
        document = msgspec.to_builtins(good_catalog(file, as_json=as_json))
    if as_json:
        say(document)
        return
    import yaml

    typer.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


@app.command("apply")
def apply(
    file: Annotated[Path, typer.Argument(help="A catalog: one YAML file.")],
    state_dir_: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Give a running gateway a changed catalog; no request is dropped."""
    good_catalog(file, as_json=as_json)
    text = file.read_text("utf-8")
    answer = _asked(state_dir_, "POST", as_json=as_json, text=text, name=str(file))
    if as_json:
        say({"ok": True, **answer})
        return
    kinds = ("added", "changed", "removed")
    told = [f"{kind}: {', '.join(answer[kind])}" for kind in kinds if answer[kind]]
    sections = ("tenants", "policy", "telemetry", "forecast")
    told += [section for section in sections if answer[f"{section}_changed"]]
    typer.echo("\n".join([f"catalog {answer['version']} is in force", *(told or ["no change"])]))


def running_catalog(card: state_dir.Card, *, as_json: bool) -> "Catalog":
    """What is in force in a running gateway."""
    from gateway.admin_client import ask
    from gateway.progress import steps
    from placement.catalog import Catalog

    with steps() as shown:
        return msgspec.convert(ask(card, "GET", "/catalog", shown, as_json=as_json), Catalog)


def _asked(
    given: Path | None, method: str, *, as_json: bool, text: str = "", name: str = ""
) -> dict[str, Any]:
    """The running gateway's answer about its catalog."""
    from gateway.admin_client import ask
    from gateway.progress import steps

    folder = state_dir.named(given)
    card = state_dir.read_card(folder)
    if card is None:
        fail(state_dir.no_gateway(folder), as_json=as_json, code=FAILED)
    with steps() as shown:
        return ask(card, method, "/catalog", shown, as_json=as_json, text=text, name=name)


def good_catalog(file: Path, *, as_json: bool) -> "Catalog":
    """The catalog in a file, or the end of the command with everything that is wrong with it."""
    from gateway.progress import steps
    from placement.catalog_file import CatalogError, load_catalog

    try:
        with steps() as shown:
            shown.step(f"reading {file}")
            return load_catalog(file)
    except CatalogError as error:
        report_problems(error, as_json=as_json)
        raise typer.Exit(BAD_INPUT) from None


def report_problems(error: "CatalogError", *, as_json: bool) -> None:
    """All problems, for a machine on stdout or for a person on stderr."""
    if as_json:
        problems = [msgspec.to_builtins(problem) for problem in error.problems]
        typer.echo(json.dumps({"ok": False, "problems": problems}))
        return
    for problem in error.problems:
        typer.echo(str(problem), err=True)
