"""Ports of vLLM servers: a block for each replica, so that two engines never meet. ✎

In: the ports that replicas of this node have, a name to begin the search at. Out: a block whose
first port is free now. Below the range from which the kernel gives out ports of its own.
"""

import socket
import zlib

from placement.engines.base import EngineError
from placement.engines.vllm_launch import Ports

_FIRST, _WIDTH, _BLOCKS = 21_000, 32, 360
_INNER = 1
"""A server and its helpers count upwards from here; the rest of the block is theirs."""


def free_ports(taken: set[int], name: str) -> Ports:
    """Names spread over the blocks, so that agents of several nodes rarely try the same one."""
    start = zlib.crc32(name.encode())
    for i in range(_BLOCKS):
        api = _FIRST + (start + i) % _BLOCKS * _WIDTH
        if api not in taken and _free(api) and _free(api + _INNER):
            return Ports(api=api, inner=api + _INNER)
    last = _FIRST + _BLOCKS * _WIDTH - 1
    raise EngineError(f"no free block of {_WIDTH} ports between {_FIRST} and {last}")


def _free(port: int) -> bool:
    """Bound without any leave to share: vLLM's own socket would share a port and say nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
