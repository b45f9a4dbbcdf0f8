"""How commands speak: one JSON document or a sentence, and the exit code that goes with it."""

import sys
from typing import Any, NoReturn

import msgspec
import typer

FAILED = 1
BAD_INPUT = 2


class BadInputError(Exception):
    """What the user gave cannot be used; the text says why and what to do."""


class StartError(Exception):
    """The gateway cannot start; the text says why and what to do."""


def say(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def fail(message: str, *, as_json: bool, code: int = BAD_INPUT) -> NoReturn:
    """Say what went wrong, for people on stderr, for programs on stdout; end."""
    if as_json:
        say({"error": message})
    typer.echo(f"warmtide: {message}", err=True)
    raise typer.Exit(code)
