"""Files that hold keys. An edge: reads one, and only if nobody else can."""

import stat
from pathlib import Path

from loadtests.errors import AskedError


def private_text(path: Path, flag: str) -> str:
    """The text of a file that only its owner may read; `flag` is the option that named it."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("ascii")
    except (OSError, UnicodeError) as error:
        raise AskedError(f"{flag} {path}: cannot be read as a key") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise AskedError(f"{flag} {path}: others may read it; run `chmod 600 {path}`")
    return text
