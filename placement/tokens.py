"""Tokens that processes of one owner know each other by. An edge: files with mode 0600.

In: a path. Out: the token there, made on first use. Never: a file with half a token or none in it:
an empty token would open every door.
"""

import os
import secrets
from pathlib import Path


def token_in(path: Path) -> str:
    """The token, readable by its owner alone; kept from run to run."""
    try:
        if token := path.read_text("ascii").strip():
            return token
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(32)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token)
    fresh.replace(path)
    return token
