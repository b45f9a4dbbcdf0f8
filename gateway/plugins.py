"""Commands of other packages, by entry points, and the names of all such groups. An edge.

In: entry points that name a function, or a `typer.Typer` with commands of its own. Out: commands
beside the built-in ones. One that cannot be loaded says so when it is called, and takes no other
command with it. Never: replaces a built-in command, loads a package for a command that was not
asked for.
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from gateway.words import FAILED, fail

COMMANDS = "warmtide.commands"
FLEETS = "warmtide.fleets"
CHECKS = "warmtide.checks"


class Commands(TyperGroup):
    """The built-in commands, then those of plug-ins by name."""

    def list_commands(self, ctx: Any) -> list[str]:
        known = super().list_commands(ctx)
        return [*known, *sorted({e.name for e in entry_points(group=COMMANDS)} - set(known))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None:
            for entry in entry_points(group=COMMANDS, name=cmd_name):
                found = _command(entry.name, loaded(entry))
                self.add_command(found, entry.name)
                break
        return found


def loaded(entry: EntryPoint) -> Callable[..., Any]:
    """What the entry point names, or a command that says why it is not to be had."""
    try:
        found: Callable[..., Any] = entry.load()
    except Exception as error:  # another package's code may raise anything
        return _unloadable(entry, f"{type(error).__name__}: {error}")
    return found


def _unloadable(entry: EntryPoint, why: str) -> Callable[..., Any]:
    package = entry.dist.name if entry.dist else entry.value

    def unloadable() -> None:
        fail(
            f"{entry.name} cannot be loaded ({why}): mend or remove the package {package}",
            as_json=False,
            code=FAILED,
        )

    unloadable.__doc__ = f"Cannot be loaded: {why}"
    return unloadable


def _command(name: str, call: Callable[..., Any]) -> Any:
    """A function is a command; a Typer is a group, mounted as we mount our own: without options
    of a command line of its own, such as `--install-completion`."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    if not isinstance(call, typer.Typer):
        alone.command(name)(call)
        return typer.main.get_command(alone)
    alone.add_typer(call, name=name)
    return typer.main.get_group(alone).commands[name]
