"""The command line `warmtide`. An edge: the only place that reads arguments and the environment.

Every command takes `--json`: one JSON document on stdout, logs on stderr. Exit codes: 0 done,
1 failed, 2 bad input. Other packages add commands by the entry points `warmtide.commands`.
"""

import asyncio
import logging
import os
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from gateway import catalog_cli, daemon, history_cli, state_dir
from gateway.status_cli import status
from gateway.words import FAILED, BadInputError, StartError, fail, say

cli = typer.Typer(
    help="Warmtide: one OpenAI endpoint over many models on few GPUs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
cli.add_typer(catalog_cli.app, name="catalog")
cli.add_typer(history_cli.app, name="history")
keys = typer.Typer(help="API keys of tenants.", no_args_is_help=True)
cli.add_typer(keys, name="key")
cli.command()(status)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
StateDir = Annotated[
    Path | None, typer.Option(help="Folder for state; default $XDG_STATE_HOME/warmtide.")
]


@cli.command()
def up(
    catalog: Annotated[
        Path | None, typer.Option(help="Catalog file; default: the shipped local.yaml.")
    ] = None,
    fleet: Annotated[str, typer.Option(help="Which fleet runs the engines.")] = "local",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    admin_port: Annotated[int, typer.Option(min=0, max=65535)] = 8001,
    state_dir_: Annotated[Path | None, typer.Option("--state-dir")] = None,
    time_scale: Annotated[
        float | None, typer.Option(min=0.1, max=1000, help="Trace seconds per wall second.")
    ] = None,
    detach: Annotated[
        bool, typer.Option(help="Return when ready; `warmtide down` ends it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start the gateway and its fleet; run until Ctrl-C (or return when ready with --detach)."""
    folder = state_dir.folder_of(state_dir_)
    path = catalog or daemon.shipped("local.yaml")
    settings = {
        "catalog_path": str(path.resolve()),
        "fleet": fleet,
        "host": host,
        "port": port,
        "admin_port": admin_port,
        "state_dir": str(folder),
        "time_scale": time_scale,
    }
    running = state_dir.read_card(folder)
    if running is not None:
        fail(
            f"a gateway already runs over {folder}: {running.url} (pid {running.pid}). "
            "Use it, end it with `warmtide down`, or give another --state-dir",
            as_json=as_json,
            code=FAILED,
        )
    if detach:
        daemon.detach(settings, as_json=as_json)
    else:
        _serve(settings, as_json=as_json)


def _serve(settings: dict[str, Any], *, as_json: bool) -> None:
    import uvloop

    from gateway.checks import UnfitError
    from gateway.serving import Serving, Settings, load_for_start
    from placement.catalog_file import CatalogError

    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if as_json else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    catalog_path = Path(settings["catalog_path"])
    try:
        catalog = load_for_start(catalog_path, settings["host"], settings["fleet"], _secret_of)
    except CatalogError as error:
        catalog_cli.report_problems(error, as_json=as_json)
        raise typer.Exit(2) from None
    except UnfitError as error:
        fail(str(error), as_json=as_json)

    async def run() -> None:
        serving = Serving(Settings(**settings), catalog, _secret_of)
        try:
            card = await serving.start()
            daemon.announce(card, catalog, as_json=as_json)
            await serving.until_stopped()
        finally:
            await serving.close()

    try:
        with (
            state_dir.locked(Path(settings["state_dir"])),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(run())
    except StartError as error:
        fail(str(error), as_json=as_json, code=FAILED)


def _secret_of(name: str) -> str:
    return os.environ.get(name, "")  # noqa: TID251 -- the one reader


@cli.command()
def down(
    state_dir_: Annotated[Path | None, typer.Option("--state-dir")] = None, as_json: AsJson = False
) -> None:
    """End the gateway of this state directory, and whatever it left running."""
    folder = state_dir.folder_of(state_dir_)
    ended = daemon.end(folder)
    if as_json:
        say({"ended": ended})
    else:
        typer.echo("\n".join(ended) if ended else f"nothing was running over {folder}")


@keys.command("new")
def key_new(as_json: AsJson = False) -> None:
    """Make an API key: give the key to its user, put the digest into the catalog."""
    import hashlib
    import secrets

    key = f"wt-{secrets.token_urlsafe(32)}"
    digest = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    if as_json:
        say({"key": key, "sha256": digest})
    else:
        typer.echo(f"key (shown once):  {key}\nfor the catalog:   {digest}")


@cli.command("version")
def show_version(as_json: AsJson = False) -> None:
    """Which version this is."""
    number = version("warmtide")
    if as_json:
        say({"version": number})
    else:
        typer.echo(f"warmtide {number}")


def main() -> None:
    """Entry point: plug-in commands join, errors become sentences."""
    for entry in sorted(entry_points(group="warmtide.commands"), key=lambda e: e.name):
        cli.command(entry.name)(entry.load())
    try:
        cli()
    except BadInputError as error:
        typer.echo(f"warmtide: {error}", err=True)
        sys.exit(2)
    except msgspec.MsgspecError as error:
        typer.echo(f"warmtide: unreadable state: {error}", err=True)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
