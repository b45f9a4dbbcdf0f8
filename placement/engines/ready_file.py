"""What drivers of engine processes share: the file that says where one listens, and HTTP. ✎

A process of ours binds a port, then writes down which. Whoever started it waits for that file, or
for the end of the process.
"""

import asyncio
from pathlib import Path

import httpx
import msgspec

from placement.engines.base import EngineError, alive, read_identity

_POLL_WALL_S = 0.02


class Ready(msgspec.Struct):
    """What a process writes when it listens."""

    pid: int
    port: int


def new_client(token_file: str) -> httpx.AsyncClient:
    """Plain HTTP on this machine, with the token; each deed sets its own time limit."""
    token = Path(token_file).read_text().strip()
    return httpx.AsyncClient(
        headers={"Authorization": f"Bearer {token}"},
        timeout=None,
        trust_env=False,
        verify=False,
    )


def read_ready(path: Path) -> Ready | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ready)
    except (OSError, msgspec.DecodeError):
        return None


async def until_ready(
    ready_file: Path, identity_file: Path, log: Path, *, limit_s: float | None = None
) -> int:
    """The port, once a fresh process has said that it listens."""
    try:
        async with asyncio.timeout(limit_s):
            while (ready := read_ready(ready_file)) is None:
                identity = read_identity(identity_file)
                if identity is not None and not alive(identity):
                    raise EngineError(f"the process ended before it listened: see {log}")
                await asyncio.sleep(_POLL_WALL_S)
    except TimeoutError:
        raise EngineError(f"no word after {limit_s} s: see {log}") from None
    return ready.port
