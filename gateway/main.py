"""The command line `warmtide`. An edge: the only place that reads arguments.

Every command takes `--json`: one JSON document on stdout, logs on stderr. Exit codes: 0 done,
1 failed, 2 bad input. Other packages add commands by the entry points `warmtide.commands`. What a
command needs is imported when it runs, so that help and completions come at once.
"""

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway import catalog_cli, completing, events_cli, history_cli, state_dir
from gateway.doctor.cli import doctor
from gateway.environment import secret_of
from gateway.plugins import Commands
from gateway.progress import Steps, steps
from gateway.status_cli import status
from gateway.words import BAD_INPUT, FAILED, BadInputError, StartError, fail, say

if TYPE_CHECKING:
    from placement.catalog import Catalog

cli = typer.Typer(
    cls=Commands,
    help="Warmtide: one OpenAI endpoint over many models on few GPUs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
cli.add_typer(catalog_cli.app, name="catalog")
cli.add_typer(history_cli.app, name="history")
cli.add_typer(events_cli.app, name="events")
keys = typer.Typer(help="API keys of tenants.", no_args_is_help=True)
cli.add_typer(keys, name="key")
cli.command()(status)
cli.command()(doctor)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
StateDir = Annotated[
    Path | None, typer.Option(help="Folder for state; default $XDG_STATE_HOME/warmtide.")
]


@cli.command()
def up(
    catalog: Annotated[
        Path | None, typer.Option(help="Catalog file; default: the shipped local.yaml.")
    ] = None,
    fleet: Annotated[
        str,
        typer.Option(help="Which fleet runs the engines.", autocompletion=completing.fleets),
    ] = "local",
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
    from gateway import daemon

    folder = state_dir.writable_folder(state_dir_)
    path = catalog or state_dir.shipped("local.yaml")
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
    import asyncio

    import uvloop

    from gateway import daemon
    from gateway.limits import allow_many_sockets
    from gateway.serving import Serving, Settings

    _log_to_stderr(verbose=as_json)
    catalog, folder = _loaded(settings, as_json=as_json), Path(settings["state_dir"])

    async def run(shown: Steps) -> None:
        tell = _teller(shown, folder)
        serving = Serving(Settings(**settings), catalog, secret_of, tell)
        try:
            card = await serving.start()
            state_dir.drop_phase(folder)
            shown.rest()
            daemon.announce(card, catalog, as_json=as_json)
            await serving.until_stopped()
        finally:
            await serving.close()
            state_dir.drop_phase(folder)

    allow_many_sockets()
    try:
        with (
            state_dir.locked(folder),
            steps() as shown,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(run(shown))
    except StartError as error:
        fail(str(error), as_json=as_json, code=FAILED)
    except OSError as error:  # a full disk, a quota, a folder taken away
        fail(
            f"{error.filename or folder}: {error.strerror or error}; `warmtide doctor --state-dir "
            f"{folder}` looks closer",
            as_json=as_json,
            code=FAILED,
        )


def _loaded(settings: dict[str, Any], *, as_json: bool) -> "Catalog":
    """The catalog, checked against how it will be served, or the end of the command."""
    from gateway.checks import UnfitError
    from gateway.serving import load_for_start
    from placement.catalog_file import CatalogError

    path, host, fleet = Path(settings["catalog_path"]), settings["host"], settings["fleet"]
    try:
        with steps() as shown:
            shown.step(f"reading {path}")
            return load_for_start(path, host, fleet, secret_of)
    except CatalogError as error:
        catalog_cli.report_problems(error, as_json=as_json)
        raise typer.Exit(BAD_INPUT) from None
    except UnfitError as error:
        fail(str(error), as_json=as_json)


def _teller(shown: Steps, folder: Path) -> Callable[[str, str], None]:
    """What the gateway waits for, said here and left in the state directory for other commands."""
    last = ("", "")

    def tell(name: str, told: str) -> None:
        nonlocal last
        if (name, told) != last:
            last = (name, told)
            state_dir.write_phase(folder, name, told)
            shown.step(told, name=name)

    return tell


def _log_to_stderr(*, verbose: bool) -> None:
    import logging

    class Stderr(logging.StreamHandler[Any]):
        """Whatever stderr is now: while a live line is shown, logs go above it."""

        def emit(self, record: logging.LogRecord) -> None:
            self.stream = sys.stderr
            super().emit(record)

    logging.basicConfig(
        handlers=[Stderr()],
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)


@cli.command()
def down(
    state_dir_: Annotated[Path | None, typer.Option("--state-dir")] = None, as_json: AsJson = False
) -> None:
    """End the gateway of this state directory, and whatever it left running."""
    from gateway import daemon

    folder = state_dir.named(state_dir_)
    with steps() as shown:
        ended = daemon.end(folder, shown)
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
    """Entry point: errors become sentences."""
    try:
        cli()
    except BadInputError as error:
        _end_with(str(error), BAD_INPUT)
    except msgspec.MsgspecError as error:
        _end_with(f"unreadable state: {error}", FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _end_with(f"{where}{error.strerror or error}", FAILED)


def _end_with(message: str, code: int) -> None:
    """As `fail`, for what no command caught."""
    try:
        fail(message, as_json="--json" in sys.argv[1:], code=code)
    except typer.Exit:
        sys.exit(code)


if __name__ == "__main__":
    main()
