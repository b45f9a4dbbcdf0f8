"""What the machine's facts mean for a gateway. Pure.

In: records of what was seen: versions, ports, folders, limits, memory, clocks. Out: findings.
Never: looks for itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from gateway.doctor.finding import Finding, fail, ok, warn
from placement.catalog import Catalog, EngineKind
from placement.catalog_units import human_bytes
from placement.edges import host_bytes
from placement.engines.llamacpp_context import context_tokens
from placement.snapshot import Rung

DISK_FAIL_BYTES = 64_000_000
DISK_WARN_BYTES = 1_000_000_000
OPEN_FILES_MIN = 256
"""Below this a gateway cannot even hold its own ports, engines and a few clients."""

GATEWAY_BYTES = 80_000_000
AGENT_BYTES = 45_000_000
ENGINE_HOST_BYTES = 40_000_000
LLAMACPP_BYTES = 75_000_000
"""Measured: what each process takes beside weights and KV cache (docs/operating.md)."""

CLOCK_SLACK_S = 120.0


# --- versions


class Installed(NamedTuple):
    """A package that Warmtide's metadata asks for, and the version there is, if any."""

    requirement: str
    version: str | None


def judge_python(version: str, wanted: str) -> Finding:
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return ok("python", f"{version} (wants {wanted})")
    mend = f"make the environment anew: `make clean setup PYTHON=python{_least(wanted)}`"
    return fail("python", f"{version}, and Warmtide wants {wanted}", mend)


def _least(wanted: str) -> str:
    return next((s.version for s in SpecifierSet(wanted) if s.operator in (">=", "~=", "==")), "3")


def judge_packages(installed: Sequence[Installed]) -> Iterator[Finding]:
    """One finding per package that is missing or of a wrong version; else one for all."""
    needed = [(Requirement(i.requirement), i.version) for i in installed]
    bad = [
        (requirement, version)
        for requirement, version in needed
        if version is None or not requirement.specifier.contains(version, prereleases=True)
    ]
    for requirement, version in bad:
        wanted = f"{requirement.name}{requirement.specifier}"
        found = f"{requirement.name} {version}" if version else f"{requirement.name} is missing"
        yield fail(
            "packages", f"{found}, wanted is {wanted}", f"`make setup`, or `pip install '{wanted}'`"
        )
    if not bad:
        yield ok("packages", f"{len(needed)} packages as asked")


# --- ports


class Holder(NamedTuple):
    """Who listens on a port, as far as it can be seen."""

    pid: int
    name: str
    ours: bool
    """It is the gateway of this state directory."""


class PortSeen(NamedTuple):
    """`error` is why the port could not be bound; empty where it could."""

    flag: str
    host: str
    port: int
    error: str = ""
    in_use: bool = False
    holder: Holder | None = None


def judge_port(seen: PortSeen) -> Finding:
    check, where = seen.flag.removeprefix("--"), f"{seen.host}:{seen.port}"
    if seen.port == 0:
        return ok(check, "0: a free one is taken")
    if not seen.error:
        return ok(check, f"{where} is free")
    if not seen.in_use:
        mend = f"choose another address or port: --host, {seen.flag}"
        return fail(check, f"{where} cannot be listened on: {seen.error}", mend)
    if seen.holder is None:
        mend = f"choose another with {seen.flag} (who holds it, root can see: `ss -ltnp`)"
        return fail(check, f"{where} is held by a process that cannot be seen", mend)
    if seen.holder.ours:
        return ok(check, f"{where} is held by the gateway that runs here (pid {seen.holder.pid})")
    mend = f"choose another with {seen.flag}, or end pid {seen.holder.pid} if it is yours"
    return fail(check, f"{where} is held by {seen.holder.name} (pid {seen.holder.pid})", mend)


# --- the state directory


class FolderSeen(NamedTuple):
    """The state directory, or what stands where it is to be. `error`: why a file could not be
    written there (or the folder not be made); `secrets_open`: tokens that others may read."""

    path: str
    exists: bool
    mode: int = 0o700
    error: str = ""
    secrets_open: tuple[str, ...] = ()
    free_bytes: int = 0
    sqlite: str = ""
    sqlite_error: str = ""


def judge_folder(seen: FolderSeen) -> Iterator[Finding]:
    if seen.error:
        mend = "name another with --state-dir, or mend its owner, mode or disk"
        yield fail("state-dir", f"{seen.path}: {seen.error}", mend)
    elif not seen.exists:
        yield ok("state-dir", f"{seen.path} is made at the first `warmtide up`")
    elif seen.mode & 0o022:
        found = f"{seen.path} has mode {seen.mode:04o}: others may write into it, `up` refuses it"
        yield fail("state-dir", found, f"`chmod 700 {seen.path}`, and remove what is not yours")
    elif seen.mode & 0o077:
        found = f"{seen.path} has mode {seen.mode:04o}: others may look into it"
        yield warn("state-dir", found, f"`chmod 700 {seen.path}`")
    else:
        yield ok("state-dir", f"{seen.path} (mode {seen.mode:04o})")
    if seen.secrets_open:
        files = " ".join(f"{seen.path}/{name}" for name in seen.secrets_open)
        yield fail(
            "tokens", f"others may read {', '.join(seen.secrets_open)}", f"`chmod 600 {files}`"
        )
    yield _judge_disk(seen)
    if seen.sqlite_error:
        mend = "use a --state-dir on a local disk: SQLite needs file locks and shared memory there"
        yield fail("sqlite", f"no database can be kept in {seen.path}: {seen.sqlite_error}", mend)
    elif seen.exists and not seen.error:
        yield ok("sqlite", f"{seen.sqlite}: a database can be kept there")


def _judge_disk(seen: FolderSeen) -> Finding:
    found = f"{human_bytes(seen.free_bytes)} free for {seen.path}"
    mend = "free some, or name a --state-dir on another disk: logs grow and are not rotated"
    if seen.free_bytes < DISK_FAIL_BYTES:
        return fail("disk", found, mend)
    if seen.free_bytes < DISK_WARN_BYTES:
        return warn("disk", found, mend)
    return ok("disk", found)


def judge_leftovers(left: Sequence[str], *, stale: Sequence[str], running: bool) -> Finding:
    """Processes and files of a gateway that is gone. One that lives owns what is there."""
    if running:
        return ok("leftovers", "none: the gateway that runs owns what is there")
    if left:
        mend = "`warmtide down` ends them; `warmtide up` takes them back"
        return warn("leftovers", f"without a gateway there still run: {'; '.join(left)}", mend)
    if stale:
        names = " and ".join(stale)
        return warn("leftovers", f"{names} of a gateway that is gone", "`warmtide down` tidies up")
    return ok("leftovers", "none")


# --- limits, memory, clocks


def judge_open_files(limit: int, catalog: Catalog | None) -> Finding:
    """`limit` is what `up` can reach. A request takes two sockets: the client's, the engine's."""
    wanted = OPEN_FILES_MIN
    if catalog is not None:
        wanted += 2 * sum(m.max_num_seqs * max(len(m.endpoints), 1) for m in catalog.models)
    found = f"at most {limit} open files"
    mend = f"raise the hard limit for this user (`ulimit -Hn {wanted}` as root, or limits.conf)"
    if limit < OPEN_FILES_MIN:
        return fail("open-files", f"{found}: a gateway needs {OPEN_FILES_MIN}", mend)
    if limit < wanted:
        short = f"{found}, and the catalog's engines can hold requests for {wanted}"
        return warn("open-files", short, mend)
    return ok("open-files", f"{found} ({wanted} are enough for this catalog)")


def needed_bytes(catalog: Catalog) -> int:
    """Memory of this machine that the catalog takes when all its real engines run once."""
    kinds = {spec.engine for spec in catalog.models}
    need = GATEWAY_BYTES + AGENT_BYTES * len(catalog.nodes)
    if EngineKind.EMULATED in kinds:
        need += ENGINE_HOST_BYTES * len(catalog.nodes)
    for spec in catalog.models:
        if spec.engine is EngineKind.LLAMACPP:
            kv_bytes = context_tokens(spec) * spec.kv_bytes_per_token
            need += spec.weights_bytes + kv_bytes + LLAMACPP_BYTES
        elif spec.engine is EngineKind.VLLM:
            need += host_bytes(spec, Rung.PARKED)
    return need


def judge_memory(need: int, available: int, total: int, *, running: bool) -> Finding:
    found = f"{human_bytes(available)} available of {human_bytes(total)}"
    if running:
        return ok("memory", f"{found}, with the gateway running")
    short = f"{found}, and the catalog's engines need about {human_bytes(need)}"
    if need > total:
        mend = "take models out of the catalog, or run it on a machine with more memory"
        return fail("memory", short, mend)
    if need > available:
        return warn("memory", short, "end what else takes memory here, or take models out")
    return ok("memory", f"{found}; about {human_bytes(need)} needed")


def judge_clock(now_s: float, written_s: Iterable[float]) -> Finding:
    """`written_s`: when files of ours were written. Nothing can be from the future."""
    newest_s = max(written_s, default=now_s)
    if newest_s - now_s > CLOCK_SLACK_S:
        found = f"{(newest_s - now_s) / 3600:.1f} h behind files that were written here"
        return warn("clock", found, "set the clock (`timedatectl set-ntp true`)")
    return ok("clock", "not behind any file of ours")
