"""What is wrong with a catalog, told so that a person can mend it.

In: a place in the document, what is wrong there, what to do. Out: `Problem`s and `CatalogError`.
Never: repeats a value that may be a secret; only names of keys and models are shown.
"""

import difflib
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from placement.catalog import Frozen

Path: TypeAlias = tuple[str | int, ...]

SHOWN_CHARS = 60


class Problem(Frozen, frozen=True, kw_only=True):
    """One thing to mend: where, what, and how. `field` is dotted: `models[2].weights`."""

    file: str
    line: int
    field: str
    what: str
    remedy: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.file}:{self.line}: {field}{self.what}. {self.remedy}"


class CatalogError(Exception):
    """A catalog that cannot be used; `problems` holds everything found, in order of lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Finding(NamedTuple):
    """A problem before it knows its file; `line` 0 means: the line of `path`."""

    path: Path
    what: str
    remedy: str
    line: int = 0


class BrokenError(Exception):
    """A finding that ends the reading: nothing behind it can be understood."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(finding.what)


def dotted(path: Path) -> str:
    """`("models", 2, "weights")` → `models[2].weights`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{shown(part)}" if text else shown(part)
    return text


def shown(text: str) -> str:
    """Text from a file, safe to print: on one line, and not endless."""
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return plain if len(plain) <= SHOWN_CHARS else plain[: SHOWN_CHARS - 1] + "…"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name a typing mistake most likely meant."""
    near = difflib.get_close_matches(word[:SHOWN_CHARS], sorted(known), n=1, cutoff=0.6)
    return near[0] if near else None
