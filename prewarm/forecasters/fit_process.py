"""The process that fits, one stream after the other, and gives way to everybody else. An edge.

In: `Job`s on standard input. Out: an `Answer` to each on standard output. It runs at the lowest
priority, on one core, within its share of memory, first in line for the kernel's out-of-memory
killer. Never: outlives who started it: standard input ends with them, and that ends the whole group
of processes, the programs that libraries start included.

Memory is capped by RLIMIT_DATA: what is private and can be written to. RLIMIT_AS would also count
what is only reserved (stacks of threads, arenas, mapped libraries: gigabytes that are never used),
and a watch on the resident size comes too late for one large allocation. A library gets ENOMEM at
the very allocation, so the stream fails alone and the process goes on.
"""

import importlib
import os
import queue
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path as Folder

import msgspec

# numpy's threads are counted when it is loaded, and a fit is to have one core.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.putenv(_variable, "1")

from prewarm.forecasters import fit_words  # noqa: E402
from prewarm.forecasters.fits import MissingLibraryError  # noqa: E402
from prewarm.forecasters.paths import FitRequest, Path  # noqa: E402

_NICE = 19
_KILLED_FIRST = "800"
"""Of 1000: the kernel's out-of-memory killer takes this process long before the gateway."""
_READ_BYTES = 1 << 16


def main() -> None:
    start = msgspec.json.decode(sys.argv[1], type=fit_words.Start)
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer of ours
    _give_way(start.memory_bytes)
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs, start.folder), daemon=True).start()
    sys.path[:] = start.python_path
    tempfile.tempdir = start.folder
    module, _, name = start.fits.partition(":")
    fits: Mapping[str, Callable[[FitRequest], Path]] = getattr(
        importlib.import_module(module), name
    )
    while True:
        answer = _answer(fits, fit_words.read_job(jobs.get()))
        _write(answers, fit_words.frame(answer))


def _give_way(memory_bytes: int) -> None:
    os.nice(_NICE)
    for limit, most in ((resource.RLIMIT_DATA, memory_bytes), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if hard < 0 else min(most, hard), hard))
    try:
        Folder("/proc/self/oom_score_adj").write_text(_KILLED_FIRST, "ascii")
    except OSError:  # not Linux, or a container that keeps it
        pass


def _listen(jobs: queue.SimpleQueue[bytes], folder: str) -> None:
    """In a thread of its own, so that the end of who started us ends a fit in its middle."""
    buffer = bytearray()
    while read := os.read(0, _READ_BYTES):
        buffer += read
        for body in fit_words.bodies(buffer):
            jobs.put(body)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def _answer(
    fits: Mapping[str, Callable[[FitRequest], Path]], job: fit_words.Job
) -> fit_words.Answer:
    try:
        path = fits[job.forecaster](fit_words.request_of(job))
    except MissingLibraryError as error:
        return fit_words.Useless(why=str(error))
    return fit_words.Row(medians=path.medians[0].tobytes(), note=path.notes[0])


def _write(fd: int, frame: bytes) -> None:
    rest = memoryview(frame)
    while rest:
        rest = rest[os.write(fd, rest) :]


if __name__ == "__main__":
    main()
