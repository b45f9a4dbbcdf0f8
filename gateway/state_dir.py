"""The gateway's folder: who runs, where, what it is doing, its token, its history. An edge.

In: a state directory. Out: the running gateway's card, the phase of one that starts or ends, its
lock, tokens (mode 0600), where its history lies. Never: trusts a pid without its start time.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from gateway.environment import state_home
from gateway.words import BadInputError, StartError
from placement.catalog import Frozen
from placement.tokens import token_in

CARD = "gateway.json"
PHASE = "phase.json"
TOKEN = "admin.token"
HISTORY_SCALED = "history-scaled.db"
LOCK = "gateway.lock"


class _Left(Frozen, frozen=True, kw_only=True):
    """Left by a gateway for the other commands; believed while exactly that process lives."""

    pid: int
    start_time: float

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.start_time) < 1.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


class Card(_Left, frozen=True, kw_only=True):
    """Of a gateway that is ready: where it listens, what it serves."""

    url: str
    admin_url: str
    state_dir: str
    catalog: str
    time_scale: float


class Phase(_Left, frozen=True, kw_only=True):
    """Of a gateway that starts or ends: what it does just now, in words for people."""

    name: str
    told: str


L = TypeVar("L", bound=_Left)


def named(given: Path | None) -> Path:
    """Which folder is meant; it may not be there yet."""
    folder = (given or state_home() / "warmtide").resolve()
    if folder.is_file():
        raise BadInputError(f"--state-dir {folder}: is a file; name a folder")
    return folder


def shipped(name: str) -> Path:
    """A catalog that comes with Warmtide."""
    return Path(str(files("serve_configs") / name))


def folder_of(given: Path | None) -> Path:
    """The state directory, made if need be; readable by its owner only."""
    folder = named(given)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadInputError(
            f"--state-dir {folder}: cannot be made: {error.strerror}; name a folder of yours"
        ) from None
    return folder


def writable_folder(given: Path | None) -> Path:
    """The state directory for a command that writes into it."""
    folder = folder_of(given)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise BadInputError(
            f"--state-dir {folder}: you may not write there; name a folder of yours, or mend its "
            f"owner (`chown -R $USER {folder}`)"
        )
    if (mode := folder.stat().st_mode) & 0o022:
        raise BadInputError(
            f"--state-dir {folder}: others may write there (mode {mode & 0o7777:04o}), so its "
            f"tokens may be known and its files lead elsewhere: `chmod 700 {folder}` and remove "
            "what is not yours, or name a folder of yours"
        )
    return folder


def read_card(state_dir: Path) -> Card | None:
    """The card of a gateway that runs over this folder, or None."""
    return _read(state_dir / CARD, Card)


def history_file(folder: Path, time_scale: float | None) -> Path:
    """Where the history of a gateway with this scale lies; None: of the one that ran there last."""
    real, scaled = folder / "history.db", folder / HISTORY_SCALED
    if time_scale is None:
        return real if real.exists() or not scaled.exists() else scaled
    return real if time_scale == 1.0 else scaled


def is_scaled(history: Path) -> bool:
    """Whether a history is of a fleet whose time does not run with the wall."""
    return history.name == HISTORY_SCALED


def no_gateway(state_dir: Path) -> str:
    """Why there is nobody to ask, and what to do."""
    phase = read_phase(state_dir)
    if phase is not None:
        return (
            f"the gateway over {state_dir} (pid {phase.pid}) is busy {phase.told}: wait for it, "
            "or end it with `warmtide down`"
        )
    return f"no gateway runs over {state_dir}: start one with `warmtide up`"


def read_phase(state_dir: Path) -> Phase | None:
    """What a gateway over this folder is doing on its way up or down, or None."""
    return _read(state_dir / PHASE, Phase)


def _read(path: Path, kind: type[L]) -> L | None:
    try:
        left = msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
    return left if left.alive else None


def write_card(state_dir: Path, card: Card) -> None:
    _write(state_dir / CARD, card)


def write_phase(state_dir: Path, name: str, told: str) -> None:
    """For commands that wait. A full disk costs the telling, never the start or the end."""
    phase = Phase(pid=os.getpid(), start_time=own_start_time(), name=name, told=told)
    with contextlib.suppress(OSError):
        _write(state_dir / PHASE, phase)


def _write(path: Path, left: _Left) -> None:
    """Whole or not at all: a reader never sees half a card."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(msgspec.json.encode(left))
    fresh.replace(path)


def drop_card(state_dir: Path) -> None:
    (state_dir / CARD).unlink(missing_ok=True)


def drop_phase(state_dir: Path) -> None:
    (state_dir / PHASE).unlink(missing_ok=True)


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
    return token_in(state_dir / TOKEN)
