"""Measured GPU memory, through NVIDIA's management library. ✎

It serves the driver of vLLM engines on real GPUs, which is to come; until then no agent asks, and
emulated GPUs are measured at their engine-host. No driver on the machine is a state of its own, not
an error: `used_bytes` then answers None, and what depends on it plans on the ledger alone.
Never: changes a setting of a GPU.
"""

import pynvml


def used_bytes() -> dict[int, int] | None:
    """Bytes in use on each GPU of this machine; None where no driver answers."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return {i: _used(i) for i in range(pynvml.nvmlDeviceGetCount())}
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _used(index: int) -> int:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
