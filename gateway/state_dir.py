"""The gateway's folder: who runs, where, the admin token. An edge.

In: a state directory. Out: the running gateway's card, its lock, tokens (mode 0600). Never: trusts
a pid without its start time.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from gateway.words import BadInputError, StartError
from placement.catalog import Frozen

CARD = "gateway.json"
TOKEN = "admin.token"
LOCK = "gateway.lock"


class Card(Frozen, frozen=True, kw_only=True):
    """Left by a running gateway for the other commands."""

    pid: int
    start_time: float
    url: str
    admin_url: str
    state_dir: str
    catalog: str
    time_scale: float

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.start_time) < 1.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def folder_of(given: Path | None) -> Path:
    """The state directory, made if need be; readable by its owner only."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")  # noqa: TID251 -- where the XDG rules say
    folder = (given or Path(home) / "warmtide").resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadInputError(f"--state-dir {folder}: {error.strerror}") from None
    return folder


def read_card(state_dir: Path) -> Card | None:
    """The card of a gateway that runs over this folder, or None."""
    try:
        card = msgspec.json.decode((state_dir / CARD).read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError):
        return None
    return card if card.alive else None


def write_card(state_dir: Path, card: Card) -> None:
    """Whole or not at all: a reader never sees half a card."""
    fresh = state_dir / f"{CARD}.new"
    fresh.write_bytes(msgspec.json.encode(card))
    fresh.replace(state_dir / CARD)


def drop_card(state_dir: Path) -> None:
    (state_dir / CARD).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """One gateway at a time over this folder, from before its start until after its end.

    The system lets go of the lock when the process ends, however it ends; agents and engines do not
    inherit it. Raises `StartError`.
    """
    with (state_dir / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise StartError(
                f"a gateway (pid {file.read().strip() or 'unknown'}) starts, runs or ends over "
                f"{state_dir}: use it, end it with `warmtide down`, or give another --state-dir"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def own_start_time() -> float:
    return psutil.Process().create_time()


def admin_token(state_dir: Path) -> str:
    """The admin port's token; made on first use, readable by its owner only."""
    path = state_dir / TOKEN
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token)
        return token
