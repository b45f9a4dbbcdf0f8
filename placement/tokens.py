"""Tokens that processes of one owner know each other by. An edge: files with mode 0600.

In: a path. Out: the token there, made on first use. Never: a file with half a token or none in it:
an empty token would open every door.
"""

import secrets
from pathlib import Path

from placement.private_file import write_private


def token_in(path: Path) -> str:
    """The token, readable by its owner alone; kept from run to run."""
    try:
        if token := path.read_text("ascii").strip():
            return token
    except FileNotFoundError:
        pass
    token = secrets.token_urlsafe(32)
    write_private(path, token.encode())
    return token
