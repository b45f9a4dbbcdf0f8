"""Measured GPU memory, through NVIDIA's management library. ✎

It serves the driver of vLLM engines on real GPUs; emulated GPUs are measured at their engine-host.
No driver on the machine is a state of its own, not an error: nothing is measured then, and what
depends on it plans on the ledger alone. Never: changes a setting of a GPU.
"""

from typing import Any

import pynvml


def used_bytes() -> dict[str, int]:
    """Bytes in use on each GPU of this machine, under its number and under its UUID."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    try:
        found: dict[str, int] = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = pynvml.nvmlDeviceGetUUID(handle)
            used = _used(handle)
            found |= {str(index): used, uuid if isinstance(uuid, str) else uuid.decode(): used}
        return found
    except pynvml.NVMLError:
        return {}
    finally:
        pynvml.nvmlShutdown()


def _used(handle: Any) -> int:
    """Without what the driver keeps for itself, which the first version of the call counts in."""
    version = pynvml.nvmlMemory_v2
    return int(pynvml.nvmlDeviceGetMemoryInfo(handle, version=version).used)
