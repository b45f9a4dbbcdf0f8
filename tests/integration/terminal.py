"""A command on a pseudo-terminal: what a person at a keyboard would see.

In: arguments. Out: exit code, what came on the terminal (stderr), what came on stdout beside it.
Never: a terminal that outlives the command.
"""

import os
import pty
import subprocess
import threading
from collections.abc import Mapping
from typing import NamedTuple

from tests.integration.running import SAFETY_S, WARMTIDE

CHUNK = 65_536


class Seen(NamedTuple):
    code: int
    terminal: str
    out: str


def on_terminal(*arguments: object, env: Mapping[str, str] | None = None) -> Seen:
    """Run a command with stderr on a terminal and stdout in a pipe."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []
    reader = threading.Thread(target=_drain, args=(ours, shown))
    try:
        with subprocess.Popen(
            [*WARMTIDE, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", **(env or {})},
        ) as process:
            os.close(theirs)
            reader.start()
            out, _ = process.communicate(timeout=SAFETY_S)
        reader.join(SAFETY_S)
    finally:
        os.close(ours)
    return Seen(process.returncode, b"".join(shown).decode(), out.decode())


def _drain(terminal: int, shown: list[bytes]) -> None:
    """Until the last process with this terminal has ended: reading then fails."""
    while True:
        try:
            chunk = os.read(terminal, CHUNK)
        except OSError:
            return
        if not chunk:
            return
        shown.append(chunk)
