"""A fleet of the replay's own: `warmtide up` as a child process. An edge.

In: a time scale, a catalog file. Out: where it listens. Ended on every path, with its engines.
Never: shares a port or a state folder with another fleet.
"""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from gateway.progress import Steps
from gateway.state_dir import read_phase

START_S_MAX = 240.0
END_S_MAX = 60.0
TAIL_LINES = 20
LOOK_S = 0.1


class FleetError(Exception):
    """The fleet did not come up, or is not reached. `bad_input`: the catalog is at fault."""

    def __init__(self, message: str, *, bad_input: bool = False) -> None:
        super().__init__(message)
        self.bad_input = bad_input


class Up(msgspec.Struct, frozen=True, kw_only=True):
    """The one line that `warmtide up --json` prints."""

    url: str
    admin_url: str
    state_dir: str
    pid: int
    time_scale: float


@asynccontextmanager
async def own_fleet(time_scale: float, catalog: Path | None, shown: Steps) -> AsyncIterator[Up]:
    """Start a fleet, hand it out, end it whatever happens. Its log goes with its folder."""
    folder = Path(tempfile.mkdtemp(prefix="warmtide-replay-"))
    log = folder / "up.log"
    try:
        shown.step("starting a fleet")
        process = await _started(folder, log, time_scale, catalog)
        try:
            async with _followed(folder / "state", shown):
                up = await _line(process, log)
            yield up
        finally:
            async with _followed(folder / "state", shown):
                await _ended(process, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _followed(state: Path, shown: Steps) -> AsyncIterator[None]:
    """While the fleet starts or ends, what it says it is doing."""

    async def follow() -> None:
        while True:
            phase = read_phase(state)
            if phase is not None:
                shown.step(phase.told, name=phase.name)
            await asyncio.sleep(LOOK_S)

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()
        shown.rest()


async def _started(
    folder: Path, log: Path, time_scale: float, catalog: Path | None
) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "gateway.main", "up", "--json", "--port", "0"]
    command += ["--admin-port", "0", "--state-dir", str(folder / "state")]
    command += ["--time-scale", f"{time_scale:g}"]
    command += ["--catalog", str(catalog)] if catalog else []
    with log.open("wb") as errors:
        # A session of its own: Ctrl-C reaches us alone, and we end the fleet in order.
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )


async def _line(process: asyncio.subprocess.Process, log: Path) -> Up:
    """The line that says where it listens, or the end of its log."""
    assert process.stdout is not None, "stdout is a pipe"
    try:
        async with asyncio.timeout(START_S_MAX):
            line = await process.stdout.readline()
            if not line:
                code = await process.wait()
                raise FleetError(
                    f"the fleet ended with {code} before it was ready:\n{tail(log)}",
                    bad_input=code == 2,
                )
    except TimeoutError as error:
        message = f"the fleet was not ready after {START_S_MAX:g} s:\n{tail(log)}"
        raise FleetError(message) from error
    try:
        return msgspec.json.decode(line, type=Up)
    except msgspec.DecodeError:
        # Not where it listens, then why it does not.
        code = await process.wait()
        said = line.decode("utf-8", "replace").strip()
        message = f"the fleet did not come up: {said}\n{tail(log)}"
        raise FleetError(message, bad_input=code == 2) from None


async def _ended(process: asyncio.subprocess.Process, folder: Path) -> None:
    """SIGTERM ends gateway, agents and engines; if it hangs, `down` ends what is left."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(END_S_MAX):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    if process.returncode != 0:
        down = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.main", "down", "--state-dir", str(folder / "state")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await down.wait()


def tail(log: Path) -> str:
    """The last lines of a log, for people."""
    try:
        lines = log.read_text("utf-8", "replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-TAIL_LINES:]) or "(its log is empty)"
