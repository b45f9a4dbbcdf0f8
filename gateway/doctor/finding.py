"""What a check found: one line for people, one record for programs. Pure.

In: nothing. Out: `Finding`s and the document they make. Never: a finding that is not well without
words on how to mend it; a secret.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from placement.catalog import Catalog, Frozen
from placement.catalog_problems import Problem


class Status(StrEnum):
    """`WARN`: works, but not as asked. `FAIL`: `warmtide up`, or what runs, does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(Frozen, frozen=True, kw_only=True):
    """One thing looked at. `mend` says what to do, and is empty where all is well."""

    check: str
    status: Status
    found: str
    mend: str = ""

    def __post_init__(self) -> None:
        assert bool(self.mend) == (self.status is not Status.OK), "trouble comes with its remedy"


class Setup(NamedTuple):
    """What `warmtide up` would be started with. `catalog` is None where the file is not good."""

    catalog_path: Path
    catalog: Catalog | None
    problems: Sequence[Problem]
    host: str
    port: int
    admin_port: int
    state_dir: Path
    traces: Path | None
    secret_of: Callable[[str], str]


Check: TypeAlias = Callable[[Setup], Iterable[Finding]]
"""Looks and judges. Other packages add theirs by the entry points `warmtide.checks`."""


def ok(check: str, found: str) -> Finding:
    return Finding(check=check, status=Status.OK, found=found)


def warn(check: str, found: str, mend: str) -> Finding:
    return Finding(check=check, status=Status.WARN, found=found, mend=mend)


def fail(check: str, found: str, mend: str) -> Finding:
    return Finding(check=check, status=Status.FAIL, found=found, mend=mend)


def all_well(findings: Iterable[Finding]) -> bool:
    """Warnings do not count."""
    return not any(finding.status is Status.FAIL for finding in findings)


def document(findings: Sequence[Finding]) -> dict[str, Any]:
    """What `--json` prints."""
    rows = [
        {"check": f.check, "status": f.status, "found": f.found, "mend": f.mend} for f in findings
    ]
    return {"ok": all_well(findings), "checks": rows}
