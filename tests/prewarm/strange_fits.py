"""Fits that misbehave, for the process that runs them; a stream's first value says how."""

import os
import subprocess
import sys
import time
from enum import IntEnum

import numpy as np

from prewarm.forecasters.fits import MissingLibraryError
from prewarm.forecasters.paths import FitRequest, Path


class Kind(IntEnum):
    WELL = 0
    EATS = 1
    HANGS = 2
    CRASHES = 3
    KILLED = 4
    RAISES = 5
    STARTS_A_PROGRAM = 6
    TELLS = 7


MINUTE = "import time; time.sleep(60)"


def strange(request: FitRequest) -> Path:
    path = np.full((1, request.ahead), 7.0)
    match Kind(int(request.values[0, 0])):
        case Kind.WELL:
            pass
        case Kind.EATS:
            path[:] = np.ones(1 << 28).sum()  # 2 GiB
        case Kind.HANGS:
            time.sleep(60)
        case Kind.CRASHES:
            os._exit(3)
        case Kind.KILLED:
            os.kill(os.getpid(), 9)
        case Kind.RAISES:
            raise ValueError("the fit's own words")
        case Kind.STARTS_A_PROGRAM:
            subprocess.run([sys.executable, "-c", MINUTE], check=False)
        case Kind.TELLS:
            path[0, :4] = (os.getpid(), os.getpriority(os.PRIO_PROCESS, 0), cores(), os.getsid(0))
    return Path(forecaster=request.forecaster, first=len(request.values), medians=path, notes=("",))


def cores() -> float:
    """How many seconds of processor time a second of numpy takes."""
    began_s, spent_s = time.monotonic(), time.process_time()
    matrix = np.ones((600, 600))
    while time.monotonic() - began_s < 0.3:
        matrix = matrix @ matrix / 600.0
    return (time.process_time() - spent_s) / (time.monotonic() - began_s)


def careful(request: FitRequest) -> Path:
    """As `fits.path_of` does: what memory cannot hold costs the stream alone."""
    try:
        return strange(request)
    except MemoryError:
        nothing = np.full((1, request.ahead), np.nan)
        return Path(forecaster="careful", first=0, medians=nothing, notes=("too large",))


def missing(request: FitRequest) -> Path:
    raise MissingLibraryError("orakel is not installed: pip install orakel")


FITS = {"strange": strange, "careful": careful, "missing": missing}
