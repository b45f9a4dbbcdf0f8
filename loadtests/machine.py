"""What machine this is, for reports. An edge.

In: nothing. Out: words. Never: measures anything.
"""

import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor's own name, where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
