"""CPU per request of this gateway and of peers, side by side in one run. An edge.

`make bench`, or `python -m loadtests.bench --peers DIR`: DIR/NAME is a peer's own environment. One
JSON document on stdout, progress on stderr, docs/reports/gateway.md with --report.
"""

import argparse
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec

from loadtests.bench_report import KINDS, Facts, Measured, Report, markdown, report_of
from loadtests.bench_rounds import Volume, answers, measure, rss_mb
from loadtests.bench_subjects import (
    PEERS,
    NotRunningError,
    Subject,
    await_answer,
    start_engine,
    start_ours,
    start_peer,
)
from loadtests.machine import cpu_name

QUICK = Volume(rounds=1, requests=1000, connections=16)


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def run(volume: Volume, peers: Path, names: list[str], *, quick: bool) -> Report:
    """Start everybody, measure, end everybody. A peer that does not start is told and left out."""
    load_average = os.getloadavg()[0]
    not_started: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        engine_port = start_engine(stack, folder)
        subjects = [start_ours(stack, engine_port, folder)]
        await_answer(subjects[0], answers, folder)
        for peer in names:
            try:
                subjects.append(_started(stack, peer, engine_port, folder, peers))
            except NotRunningError as error:
                not_started[peer] = str(error)
                say(f"{peer} is left out: {error}")
        measured = measure(subjects, volume, say)
        facts = _facts(subjects, volume, load_average, quick=quick)
    fell_out = {**not_started, **measured.fell_out}
    return report_of(Measured(measured.rounds, fell_out), facts)


def _started(stack: ExitStack, peer: str, engine_port: int, folder: Path, peers: Path) -> Subject:
    """A peer that answers; one that does not is ended at once, to take no CPU from the others."""
    with ExitStack() as own:
        subject = start_peer(own, peer, engine_port, folder, peers)
        await_answer(subject, answers, folder)
        stack.push(own.pop_all())
    return subject


def _facts(subjects: list[Subject], volume: Volume, load_average: float, *, quick: bool) -> Facts:
    alive = [subject for subject in subjects if subject.process.poll() is None]
    return Facts(
        cores=os.cpu_count() or 1,
        cpu=cpu_name(),
        python=platform.python_version(),
        load_average=load_average,
        rounds=volume.rounds,
        connections=volume.connections,
        requests={s.name: {kind: volume.of(kind, s) for kind in KINDS} for s in subjects},
        versions={subject.name: subject.version for subject in subjects},
        rss_mb={subject.name: rss_mb(subject) for subject in alive},
        quick=quick,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPU per request, against peers.")
    folder = "a folder of environments, one per peer"
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"), help=folder)
    parser.add_argument("--only", default=",".join(PEERS), help="peers, as vllm-router,smg")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=20_000, help="chats of a round")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--report", type=Path, help="write Markdown here")
    parser.add_argument("--quick", action="store_true", help="see that it runs; no figures")
    arguments = parser.parse_args()
    unknown = set(arguments.only.split(",")) - set(PEERS)
    if unknown:
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}, only {', '.join(PEERS)}")
    if min(arguments.rounds, arguments.requests, arguments.connections) < 1:
        parser.error("--rounds, --requests and --connections are at least 1")
    return arguments


def main() -> None:
    arguments = _arguments()
    asked = Volume(arguments.rounds, arguments.requests, arguments.connections)
    volume = QUICK if arguments.quick else asked
    try:
        report = run(volume, arguments.peers, arguments.only.split(","), quick=arguments.quick)
    except NotRunningError as error:
        sys.exit(f"bench: this gateway or its engine {error}")
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    if arguments.report is not None:
        arguments.report.parent.mkdir(parents=True, exist_ok=True)
        arguments.report.write_text(markdown(report), "utf-8")


if __name__ == "__main__":
    main()
