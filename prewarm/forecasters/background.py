"""Fits beside us: one process, at the lowest priority, capped in memory and in time. An edge.

In: `FitRequest`s. Out: `Fitted` or `Failed`, whenever one asks. One stream is fitted at a time; one
that takes too long, or takes the process with it, is lost alone and says why. The process is there
only while there is something to fit. Never: blocks for longer than it takes to start a process
(some milliseconds), lets an exception of a fit out, leaves a process behind.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO

import msgspec
import numpy as np

from placement.clock import US, monotonic_us
from prewarm.forecasters import fit_words
from prewarm.forecasters.fits import MissingLibraryError
from prewarm.forecasters.libraries import HEAVY
from prewarm.forecasters.paths import FitRequest, Path
from prewarm.forecasters.refits import Failed, Fitted
from prewarm.series import Floats

HEAVY_AT = "prewarm.forecasters.libraries:HEAVY"
_CHILD = "prewarm.forecasters.fit_process"
_LOST_MAX = 3
"""In a row. The streams after them would hardly fare better, and each may take its whole limit."""
_READ_BYTES = 1 << 20
_LAST_WORDS_BYTES = 2_000
_END_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What one process may take."""

    memory_bytes: int = 1 << 30
    """Libraries loaded and two weeks of five minutes take a quarter of it; cmdstan, which Prophet
    runs, has as much again."""
    stream_s: float = 120.0
    """For one stream; the first one also waits for the imports."""


class InPlace:
    """Fits where it is asked to, at once: for a back-test, where nobody else waits."""

    def __init__(self, fits: Mapping[str, Callable[[FitRequest], Path]] = HEAVY) -> None:
        self._fits = fits
        self._done: list[Fitted | Failed] = []

    def submit(self, request: FitRequest) -> None:
        began_us = monotonic_us()
        try:
            path = self._fits[request.forecaster](request)
        except MissingLibraryError as error:
            self._done.append(Failed(forecaster=request.forecaster, why=str(error)))
        else:
            self._done.append(Fitted(path=path, fit_s=(monotonic_us() - began_us) / US))

    def poll(self) -> list[Fitted | Failed]:
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """There is nothing to end."""


@dataclass
class _Work:
    """A request, and what has become of its streams."""

    request: FitRequest
    rows: list[Floats] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: int = 0
    """Streams in a row that brought no answer."""
    took_us: int = 0

    def add(self, medians: Floats, note: str) -> None:
        self.rows.append(medians)
        self.notes.append(note)

    def ended(self) -> Fitted | Failed | None:
        """None as long as there are streams to fit."""
        streams = len(self.request.streams)
        if self.lost and self.lost in (_LOST_MAX, streams):
            return Failed(forecaster=self.request.forecaster, why=self.notes[-1])
        if len(self.rows) < streams:
            return None
        path = Path(
            forecaster=self.request.forecaster,
            first=self.request.first + len(self.request.values),
            medians=np.array(self.rows).reshape(streams, self.request.ahead),
            notes=tuple(self.notes),
        )
        return Fitted(path=path, fit_s=self.took_us / US)


class Background:
    """`poll` now and then, in an event loop too: the time limit holds only as often as it is."""

    def __init__(self, fits: str = HEAVY_AT, caps: Caps = Caps()) -> None:
        self._fits = fits
        self._caps = caps
        self._waiting: deque[_Work] = deque()
        self._child: _Child | None = None
        self._asked_us = 0
        self._ending: list[_Child] = []

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._child is None else self._child.pid

    def submit(self, request: FitRequest) -> None:
        """Begins when what was submitted before is done. Its array must not change any more."""
        self._waiting.append(_Work(request))
        if self._child is None:
            self._ask()

    def poll(self) -> list[Fitted | Failed]:
        self._ending = [child for child in self._ending if not child.buried()]
        done: list[Fitted | Failed] = []
        while self._waiting and self._heard(self._waiting[0]):
            ended = self._waiting[0].ended()
            if ended is not None:
                self._waiting.popleft()
                done.append(ended)
            self._ask()
        return done

    def close(self) -> None:
        """End the process, and forget what was not done."""
        self._waiting.clear()
        self._end()
        for child in self._ending:
            child.bury()
        self._ending.clear()

    def _ask(self) -> None:
        """For the next stream; without one the process has nothing to stay for."""
        if not self._waiting:
            self._end()
            return
        work = self._waiting[0]
        if self._child is None:
            self._child = _Child(self._fits, self._caps.memory_bytes)
        self._asked_us = monotonic_us()
        self._child.send(fit_words.job(work.request, len(work.rows)))

    def _heard(self, work: _Work) -> bool:
        """Whether the stream that is being fitted came to an end, good or bad."""
        if self._child is None:
            return False
        answer = self._child.heard()
        spent_us = monotonic_us() - self._asked_us
        late = spent_us > self._caps.stream_s * US
        if answer is None and not self._child.gone and not late:
            return False
        work.took_us += spent_us
        match answer:
            case fit_words.Row(medians=medians, note=note):
                work.lost = 0
                work.add(fit_words.numbers(medians), note)
            case fit_words.Useless(why=why):
                work.lost = len(work.request.streams)
                work.notes.append(why)
            case None:
                self._lose(work, late=not self._child.gone)
        return True

    def _lose(self, work: _Work, *, late: bool) -> None:
        why = self._end()
        if late:
            why = f"its fit took more than {self._caps.stream_s:g} s and was ended"
        work.lost += 1
        work.add(np.full(work.request.ahead, np.nan), why)

    def _end(self) -> str:
        child, self._child = self._child, None
        if child is None:
            return ""
        self._ending.append(child)
        return child.end()


class _Child:
    """The process as we see it: pipes that never make us wait."""

    def __init__(self, fits: str, memory_bytes: int) -> None:
        self._folder = tempfile.mkdtemp(prefix="warmtide-fit-")
        start = fit_words.Start(
            fits=fits,
            python_path=tuple(sys.path),
            memory_bytes=memory_bytes,
            folder=self._folder,
        )
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (as long as we are)
        # -P: a file "numpy.py" in the folder that we happen to be in is not ours.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _CHILD, msgspec.json.encode(start).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = self._process.stdin.fileno()
        self._from = self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._unsent = bytearray()
        self._unread = bytearray()
        self.gone = False
        """It has closed its end, and says nothing more."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, job: fit_words.Job) -> None:
        self._unsent += fit_words.frame(job)
        self._push()

    def heard(self) -> fit_words.Answer | None:
        self._push()
        try:
            while read := os.read(self._from, _READ_BYTES):
                self._unread += read
            self.gone = True
        except BlockingIOError:
            pass
        for body in fit_words.bodies(self._unread):
            return fit_words.read_answer(body)
        return None

    def end(self) -> str:
        """It and what it started. Returns how it had ended by itself, in words; does not wait."""
        if self.gone:
            self._wait()  # it has given its memory back already, which is what takes time
        code = self._process.poll()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # nobody is left of its group
            pass
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        with self._errors:
            return _ended_with(code, self._last_words())

    def buried(self) -> bool:
        """Whether it is gone without a trace, once it was ended."""
        if self._process.poll() is None:
            return False
        shutil.rmtree(self._folder, ignore_errors=True)
        return True

    def bury(self) -> None:
        self._wait()
        self.buried()

    def _push(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self._to, self._unsent)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent.clear()  # it is gone, which its other pipe tells too

    def _wait(self) -> None:
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:  # in the kernel's hands, and soon to be gone
            pass

    def _last_words(self) -> str:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(size - _LAST_WORDS_BYTES, 0))
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _ended_with(code: int | None, last_words: str) -> str:
    if code is None:
        return ""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
    hint = "; is there memory enough?" if code == -signal.SIGKILL else ""
    return f"its process ended with {how}{hint}{f' ({last_words})' if last_words else ''}"
