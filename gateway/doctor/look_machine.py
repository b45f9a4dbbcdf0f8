"""Looks at the machine: versions, ports, the state directory, limits, memory, clocks. An edge.

In: what `warmtide up` would be started with. Out: facts, judged by `judge_machine`. Never: changes
anything; what it writes to try a folder is gone when it returns.
"""

import errno
import os
import resource
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from importlib.metadata import version as version_of
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from packaging.requirements import Requirement

import gateway
from gateway import limits, state_dir
from gateway.doctor import judge_machine as judge
from gateway.doctor.finding import Finding, Setup, fail, ok, warn
from gateway.plugins import CHECKS, COMMANDS, FLEETS
from placement.clock import US, wall_us
from placement.fleets.leftovers import found_in

SECRETS = (state_dir.TOKEN, "agent.token")
PLUGINS = (COMMANDS, FLEETS, CHECKS)
_CGROUP = Path("/sys/fs/cgroup")


def versions(_: Setup) -> Iterator[Finding]:
    """Against what the installed package asks for, which is what pyproject.toml said."""
    try:
        ours = distribution("warmtide")
    except PackageNotFoundError:
        yield fail("packages", "warmtide itself is not installed here", "`make setup`")
        return
    version = ".".join(map(str, sys.version_info[:3]))
    yield judge.judge_python(version, ours.metadata["Requires-Python"] or ">=3")
    asked = [text for text in ours.requires or () if _meant_for_here(text)]
    yield from judge.judge_packages([judge.Installed(text, _version(text)) for text in asked])


def _meant_for_here(requirement: str) -> bool:
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({"extra": ""})


def _version(requirement: str) -> str | None:
    try:
        return version_of(Requirement(requirement).name)
    except PackageNotFoundError:
        return None


def plugins(_: Setup) -> Iterator[Finding]:
    """Every plug-in can be loaded."""
    entries = [entry for group in PLUGINS for entry in entry_points(group=group)]
    broken = 0
    for entry in entries:
        try:
            entry.load()
        except Exception as error:  # another package's code may raise anything
            broken += 1
            package = entry.dist.name if entry.dist else entry.value
            found = f"{entry.group} {entry.name} cannot be loaded: {type(error).__name__}: {error}"
            yield warn("plug-ins", found, f"mend or remove the package {package}")
    if not broken:
        yield ok("plug-ins", ", ".join(entry.name for entry in entries) or "none")


# --- ports


def ports(setup: Setup) -> Iterator[Finding]:
    card = state_dir.read_card(setup.state_dir)
    public = _try_port("--port", setup.host, setup.port, card)
    yield judge.judge_port(public)
    admin = _try_port("--admin-port", "127.0.0.1", setup.admin_port, card)
    if setup.port == setup.admin_port != 0 and not admin.error:
        admin = admin._replace(error="--port takes it already")
    yield judge.judge_port(admin)


def _try_port(flag: str, host: str, port: int, card: state_dir.Card | None) -> judge.PortSeen:
    """Bind as a gateway would, and let go at once."""
    seen = judge.PortSeen(flag, host, port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        holder = _holder(port, card) if in_use else None
        return seen._replace(error=error.strerror or str(error), in_use=in_use, holder=holder)
    return seen


def _holder(port: int, card: state_dir.Card | None) -> judge.Holder | None:
    """Our own gateway by its card; others by what the system tells, which may be nothing."""
    if card is not None and port in (urlsplit(card.url).port, urlsplit(card.admin_url).port):
        return judge.Holder(card.pid, "gateway", ours=True)
    try:
        listening = psutil.net_connections("tcp")
    except psutil.Error:
        return None
    for line in listening:
        if (
            line.status == psutil.CONN_LISTEN
            and line.pid
            and line.laddr
            and line.laddr.port == port
        ):
            return judge.Holder(line.pid, _name_of(line.pid), ours=False)
    return None


def _name_of(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        words = " ".join(process.cmdline())
        name = process.name()
    except psutil.Error:
        return "a process"
    return "another Warmtide gateway" if "gateway.main" in words or "warmtide up" in words else name


# --- the state directory


def folder(setup: Setup) -> Iterator[Finding]:
    """Whether a gateway can keep its state there."""
    where = setup.state_dir
    there = next(p for p in (where, *where.parents) if p.exists())
    seen = judge.FolderSeen(
        path=str(where), exists=there == where, free_bytes=shutil.disk_usage(there).free
    )
    if there != where or not where.is_dir():
        yield from judge.judge_folder(seen._replace(error=_cannot_be_made(there)))
        return
    error = _cannot_be_written(where)
    mode = where.stat().st_mode & 0o7777
    seen = seen._replace(mode=mode, error=error, sqlite=f"SQLite {sqlite3.sqlite_version}")
    if not error:
        seen = seen._replace(secrets_open=_open_secrets(where), sqlite_error=_no_database(where))
    yield from judge.judge_folder(seen)


def _cannot_be_made(parent: Path) -> str:
    if not parent.is_dir():
        return f"{parent} is a file" if parent.is_file() else f"{parent} is no folder"
    may = os.access(parent, os.W_OK | os.X_OK)
    return "" if may else f"cannot be made: you may not write into {parent}"


def _cannot_be_written(where: Path) -> str:
    """Tried, not guessed from the mode: disks are full, quotas used up, mounts read-only."""
    try:
        with tempfile.NamedTemporaryFile(dir=where, prefix="doctor-") as probe:
            probe.write(b"\0" * 65_536)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return f"a file cannot be written there: {error.strerror}"
    return ""


def _open_secrets(where: Path) -> tuple[str, ...]:
    found = [name for name in SECRETS if (where / name).is_file()]
    return tuple(name for name in found if (where / name).stat().st_mode & 0o077)


def _no_database(where: Path) -> str:
    """Why a database in the folder would not work; write-ahead logs need shared memory there."""
    try:
        with tempfile.TemporaryDirectory(dir=where, prefix="doctor-") as scratch:
            database = sqlite3.connect(Path(scratch) / "try.sqlite")
            try:
                database.execute("pragma journal_mode=wal")
                database.execute("create table t (x)")
                database.execute("insert into t values (1)")
                database.commit()
            finally:
                database.close()
    except (OSError, sqlite3.Error) as error:
        return str(error)
    return ""


def leftovers(setup: Setup) -> Iterator[Finding]:
    where = setup.state_dir
    running = bool(state_dir.read_card(where) or state_dir.read_phase(where))
    left = [
        f"{name} of {node.name} (pid {identity.pid})"
        for node in sorted((where / "nodes").glob("*"))
        for name, identity in found_in(node)
    ]
    stale = [name for name in (state_dir.CARD, state_dir.PHASE) if (where / name).exists()]
    yield judge.judge_leftovers(left, stale=stale, running=running)


# --- limits, memory, clocks


def open_files(setup: Setup) -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield judge.judge_open_files(limits.grantable(hard), setup.catalog)


def memory(setup: Setup) -> Iterator[Finding]:
    if setup.catalog is None:
        return
    seen = psutil.virtual_memory()
    available, total = seen.available, seen.total
    if (most := _number(_CGROUP / "memory.max")) is not None:
        used = _number(_CGROUP / "memory.current") or 0
        available, total = min(available, max(most - used, 0)), min(total, most)
    running = state_dir.read_card(setup.state_dir) is not None
    need = judge.needed_bytes(setup.catalog)
    yield judge.judge_memory(need, available, total, running=running)


def _number(path: Path) -> int | None:
    """A container's limit; None where there is none (the file then says `max`)."""
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def clock(setup: Setup) -> Iterator[Finding]:
    ours = [Path(str(gateway.__file__)), *setup.state_dir.glob("*")]
    yield judge.judge_clock(
        wall_us() / US, [path.stat().st_mtime for path in ours if path.exists()]
    )
