"""Rounds of pressure on each subject in turn, and what they cost. An edge.

In: running subjects, how many rounds of how many requests. Out: `Round`s by kind and subject, and
who fell out. CPU is user + system time of a subject's process tree; a round in which anything
failed counts for nobody. Never: starts or ends a subject.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import psutil

from loadtests.bench_report import KINDS, Kind, Measured, Round
from loadtests.bench_subjects import LOAD_CORE, Subject, pin, request_bytes
from loadtests.pressure import Told

STREAM_FEWER = 4
"""A stream is many times the work of a chat, so there are fewer."""


class Volume(NamedTuple):
    """How much is sent."""

    rounds: int
    requests: int
    connections: int

    def of(self, kind: Kind, subject: Subject) -> int:
        """Requests of a round; never fewer than connections, so that all of them are used."""
        fewer = subject.slower.fewer_requests * (STREAM_FEWER if kind == "stream" else 1)
        return max(self.requests // fewer, self.connections)


class PressureError(Exception):
    """A round that did not go through; the text says why."""


def press(subject: Subject, kind: Kind, requests: int, connections: int) -> Told:
    """One round from a process of its own on the other core. Raises `PressureError`."""
    command = [sys.executable, "-m", "loadtests.pressure", "--port", str(subject.port)]
    command += ["--requests", str(requests), "--connections", str(connections)]
    done = subprocess.run(
        command,
        input=request_bytes(subject.port, stream=kind == "stream"),
        capture_output=True,
        check=False,
        preexec_fn=lambda: pin(LOAD_CORE),
    )
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise PressureError(f"{kind} requests could not be sent: {''.join(last)}")
    told = msgspec.json.decode(done.stdout, type=Told)
    if told.failed or told.requests != requests:
        raise PressureError(
            f"of {requests} {kind} requests {told.requests} were answered and {told.failed} failed"
        )
    return told


def answers(subject: Subject) -> bool:
    """Whether a first request is answered."""
    try:
        press(subject, "chat", requests=1, connections=1)
    except PressureError:
        return False
    return True


def measure(subjects: Sequence[Subject], volume: Volume, say: Callable[[str], None]) -> Measured:
    """Interleaved rounds, every other one in reverse order, after one that warms up and is not
    counted. A subject that fails falls out, with the reason; the others go on."""
    rounds: dict[Kind, dict[str, dict[int, Round]]] = {
        kind: {subject.name: {} for subject in subjects} for kind in KINDS
    }
    fell_out: dict[str, str] = {}
    for number in range(-1, volume.rounds):
        for kind in KINDS:
            for subject in subjects if number % 2 == 0 else reversed(subjects):
                turn = number < 0 or number % subject.slower.every_nth_round == 0
                if subject.name in fell_out or not turn:
                    continue
                try:
                    found = _one(subject, kind, volume)
                except (PressureError, psutil.Error) as error:
                    fell_out[subject.name] = str(error)
                    say(f"{subject.name} falls out: {error}")
                    continue
                say(f"round {number + 1}/{volume.rounds} {kind} {subject.name}: {found}")
                if number >= 0:
                    rounds[kind][subject.name][number] = found
    return Measured(rounds=rounds, fell_out=fell_out)


def _one(subject: Subject, kind: Kind, volume: Volume) -> Round:
    requests = volume.of(kind, subject)
    before_us = _cpu_us(subject)
    told = press(subject, kind, requests, volume.connections)
    spent_us = _cpu_us(subject) - before_us
    return Round(
        cpu_us=spent_us / requests,
        per_s=requests / told.wall_us * 1e6,
        p99_ms=told.p99_us / 1000,
    )


def _tree(subject: Subject) -> list[psutil.Process]:
    root = psutil.Process(subject.process.pid)
    return [root, *root.children(recursive=True)]


def _cpu_us(subject: Subject) -> float:
    times = [process.cpu_times() for process in _tree(subject)]
    return sum(each.user + each.system for each in times) * 1e6


def rss_mb(subject: Subject) -> int:
    return round(sum(process.memory_info().rss for process in _tree(subject)) / 1e6)
