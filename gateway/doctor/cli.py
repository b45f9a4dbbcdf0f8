"""`warmtide doctor`. An edge: options in, findings out.

In: what one would give to `warmtide up`. Out: a line per finding, or one JSON document, on stdout;
exit 0 when nothing failed, 1 when something did, 2 when the options were at fault.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from gateway import state_dir
from gateway.environment import secret_of
from gateway.progress import steps
from gateway.words import FAILED, fail, say

if TYPE_CHECKING:
    from gateway.doctor.finding import Finding, Setup

HOST, PORT, ADMIN_PORT = "127.0.0.1", 8000, 8001
_COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor(
    catalog: Annotated[
        Path | None, typer.Option(help="Catalog file; else the running one, else local.yaml.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="As for `up`.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="As for `up`.")] = None,
    admin_port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
    state_dir_: Annotated[Path | None, typer.Option("--state-dir")] = None,
    traces: Annotated[
        Path | None, typer.Option(help="Folder of public traces.", envvar="WARMTIDE_TRACES")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Look at everything that a gateway needs here; say what is wrong and how to mend it."""
    from gateway.doctor.checks import examine
    from gateway.doctor.finding import all_well, document

    if catalog is not None and not catalog.exists():
        fail(f"--catalog {catalog}: there is no such file", as_json=as_json)
    folder = state_dir.named(state_dir_)
    with steps() as shown:
        shown.step("reading the catalog")
        setup = _setup(catalog, host, port, admin_port, folder, traces)
        findings = examine(setup, shown)
    if as_json:
        say(document(findings))
    else:
        _show(findings)
    if not all_well(findings):
        raise typer.Exit(FAILED)


def _setup(
    catalog: Path | None,
    host: str | None,
    port: int | None,
    admin_port: int | None,
    folder: Path,
    traces: Path | None,
) -> "Setup":
    """What was not given is as the running gateway has it, or as `up` would."""
    from gateway.doctor.finding import Setup
    from placement.catalog_file import CatalogError, load_catalog

    card = state_dir.read_card(folder)
    url, admin = (urlsplit(card.url), urlsplit(card.admin_url)) if card else (None, None)
    path = catalog or (Path(card.catalog) if card else state_dir.shipped("local.yaml"))
    loaded, problems = None, []
    try:
        loaded = load_catalog(path)
    except CatalogError as error:
        problems = error.problems
    return Setup(
        catalog_path=path,
        catalog=loaded,
        problems=problems,
        host=host or (url and url.hostname) or HOST,
        port=_first(port, url and url.port, PORT),
        admin_port=_first(admin_port, admin and admin.port, ADMIN_PORT),
        state_dir=folder,
        traces=traces,
        secret_of=secret_of,
    )


def _first(*ports: int | None) -> int:
    return next(port for port in ports if port is not None)


def _show(findings: "list[Finding]") -> None:
    """The remedy stands under what it mends, so that it can be copied."""
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        status = typer.style(f"{finding.status:<4}", fg=_COLOURS[finding.status])
        typer.echo(f"{status}  {finding.check:<{width}}  {finding.found}")
        if finding.mend:
            typer.echo(f"{'':<{width + 8}}{finding.mend}")
    troubles = {status: sum(f.status == status for f in findings) for status in ("fail", "warn")}
    told = [f"{n} {status}" for status, n in troubles.items() if n]
    typer.echo(f"{len(findings)} findings: {', '.join(told) or 'all well'}")
