"""What the user asked for and cannot have. Pure, and light: the command line is told of it at once.

In: a name and those that there are. Out: an exception, a sentence. Never: decides what is wrong.
"""

import difflib
from collections.abc import Sequence


class AskedError(Exception):
    """The command asks for what the trace or the fleet does not have. For people, one sentence."""


def no_such(kind: str, name: str, known: Sequence[str]) -> str:
    """What there is instead, and which of it was probably meant."""
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"no {kind} {name!r}: {guess}there are {', '.join(known)}"
