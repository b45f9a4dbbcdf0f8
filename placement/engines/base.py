"""What every engine driver shares: processes that outlive us, and the port drivers stand behind. ✎

An engine runs in a session of its own, twice forked, so it is nobody's child: a signal to the
agent, or a supervisor that ends the agent's children, does not reach it. Who it is, is its pid
*and* its start time; a pid alone may be somebody else's by now, and a name never says who it is.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import psutil

from placement.catalog import Frozen, ModelSpec
from placement.snapshot import Lack, Rung, WeightsAt

IDENTITY = ".identity.json"
"""Files with this ending name a process that was started under a state directory."""

_START_TIME_SLACK_S = 2.0
"""The boot time that start times are counted from moves when the wall clock is set."""

_ENDED_POLL_S = 0.01
_GONE_S = 5.0

# It writes down who it is while a signal to the starter's group still reaches it: from its first
# moment in a session of its own, whoever cleans up can find it. Its word is good to a second.
_LAUNCHER = """
import os, sys, time
written, writes = os.pipe()
pid = os.fork()
if pid:
    os.close(writes)
    os.read(written, 1)
    print(pid)
    sys.exit()
identity_file = sys.argv[1]
with open(identity_file + ".new", "w") as file:
    file.write('{"pid":%d,"start_time":%f}' % (os.getpid(), time.time()))
os.rename(identity_file + ".new", identity_file)
os.setsid()
os.dup2(2, 1)
os.closerange(3, 1024)
os.execv(sys.argv[2], sys.argv[2:])
"""


class EngineError(Exception):
    """An engine did not do what it was told. The message says which and what it answered."""


class Identity(Frozen, frozen=True, kw_only=True):
    pid: int
    start_time: float


class Living(Frozen, frozen=True, kw_only=True):
    """A replica as its engine shows it. `rung` is None where it cannot be known from outside."""

    replica_id: str
    endpoint: str
    state: str
    rung: Rung | None = None
    message: str = ""


class Engine(Frozen, frozen=True, kw_only=True):
    """A replica as its driver needs to know it."""

    replica_id: str
    spec: ModelSpec
    gpu_ids: tuple[int, ...] = ()
    endpoint: str = ""


class Driver(Protocol):
    """One kind of engine on one node. Everything that fails raises `EngineError`."""

    async def start(self, engine: Engine, weights_at: WeightsAt) -> str:
        """Begin a start. The endpoint, or "" where it is not known before the engine answers."""

    async def ready(self, engine: Engine, eta_wall_s: float) -> str:
        """Return the endpoint when the started engine answers; raise when it exited."""

    async def lacks(self, engine: Engine) -> tuple[Lack, ...]:
        """Steps that this very engine does not offer. Known once it is ready."""

    async def step(self, engine: Engine, at: Rung, to: Rung) -> None: ...

    async def canary(self, engine: Engine) -> str:
        """The answer to a known question; the same one every time from a healthy engine."""

    async def end(self, replica_id: str) -> None:
        """End an engine at once. Ending one that is gone is no error."""

    async def living(self) -> dict[str, Living]:
        """All engines of this kind on the node, whoever started them."""

    async def abandon(self) -> None:
        """End all engines of this kind: they hang, and nobody can say what they hold."""

    async def end_forgotten(self) -> None:
        """End what was started here and that no file names any more: nobody else would."""

    async def requests(self, engine: Engine) -> int:
        """Requests running and waiting in the engine."""

    async def gpu_used_bytes(self) -> dict[int, int]:
        """Measured, per GPU. Empty where nothing can be measured."""

    async def adapt(self, engine: Engine) -> None:
        """Make the model's adapters known to the engine."""


def identity_of(pid: int) -> Identity | None:
    """Who has this pid now; None for nobody and for the dead who were not yet collected."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Identity(pid=pid, start_time=process.create_time())
    except psutil.Error:
        return None


def alive(identity: Identity) -> bool:
    """Whether exactly this process still runs."""
    now = identity_of(identity.pid)
    return now is not None and abs(now.start_time - identity.start_time) < _START_TIME_SLACK_S


async def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    identity_file: Path,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
) -> Identity:
    """Run `python argv…` in a session of its own and write down who it is. Cancelled, it first
    ends the writing: of a process that nobody has written down, nobody could ever say whose it is.
    """
    command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(identity_file), python, *argv]
    spawning = asyncio.ensure_future(_spawn(command, log, identity_file, env))
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:
        with contextlib.suppress(EngineError):
            await spawning
        raise


async def _spawn(
    command: list[str], log: Path, identity_file: Path, env: Mapping[str, str] | None
) -> Identity:
    log.parent.mkdir(parents=True, exist_ok=True)
    identity_file.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as log_file:
        launcher = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log_file,
            env=env,
        )
        printed, _ = await launcher.communicate()
    what = " ".join(command[6:9])
    if launcher.returncode != 0 or not printed:
        raise EngineError(f"could not start {what}: see {log}")
    identity = identity_of(int(printed))
    if identity is None:
        raise EngineError(f"{what} ended at once: see {log}")
    write_json(identity_file, identity)
    return identity


async def end(identity: Identity, *, grace_s: float = 0.0) -> bool:
    """End this process and the helpers of its session, politely for as long as the grace. False if
    nothing of it was left."""
    if not still_there(identity):
        return False
    if grace_s > 0:
        _signal(identity, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await _ended(identity)
    while still_there(identity):
        _signal(identity, signal.SIGKILL)
        await asyncio.sleep(_ENDED_POLL_S)
    return True


async def _ended(identity: Identity) -> None:
    # Nobody's child cannot be waited for, so its end is looked for.
    while still_there(identity):  # noqa: ASYNC110
        await asyncio.sleep(_ENDED_POLL_S)


def end_now(identity: Identity) -> bool:
    """As `end`, without a loop and without grace: for a command that cleans up."""
    if not still_there(identity):
        return False
    _signal(identity, signal.SIGKILL)
    for _ in range(int(_GONE_S / _ENDED_POLL_S)):
        if not still_there(identity):
            break
        time.sleep(_ENDED_POLL_S)
    return True


def still_there(identity: Identity) -> bool:
    """Whether the process lives, or helpers that it left behind in its session."""
    return alive(identity) or any(_orphans(identity))


def _orphans(identity: Identity) -> Iterator[psutil.Process]:
    """Helpers of a leader that is gone: they keep its session's number, and as long as they do,
    the kernel gives that number to nobody else. A leader that lives speaks for its own."""
    if identity_of(identity.pid) is not None:
        return
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mine = os.getsid(process.pid) == identity.pid
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _signal(identity: Identity, sign: signal.Signals) -> None:
    """To the whole session's group where the process leads one: engines have helpers."""
    if alive(identity):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(identity.pid) == identity.pid:
                os.killpg(identity.pid, sign)
            else:
                os.kill(identity.pid, sign)
    for orphan in _orphans(identity):
        with contextlib.suppress(psutil.Error):
            orphan.send_signal(sign)


def identity_of_spec(ready_file: Path, spec_file: Path) -> Identity | None:
    """Who answers for this spec, for a starter that died before it wrote the identity down."""
    try:
        pid = int(msgspec.json.decode(ready_file.read_bytes())["pid"])
        if str(spec_file) not in psutil.Process(pid).cmdline():
            return None
    except (OSError, msgspec.DecodeError, KeyError, ValueError, psutil.Error):
        return None
    return identity_of(pid)


def read_identity(path: Path) -> Identity | None:
    """Who was written down there; None for no file and for half a file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except (OSError, msgspec.DecodeError):
        return None


def write_json(path: Path, value: object) -> None:
    """All or nothing: a reader, or a restarted writer, never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(msgspec.json.encode(value))
    fresh.replace(path)
