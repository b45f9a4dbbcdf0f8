"""All checks, in the order in which they are told; plug-ins' at the end. An edge.

In: what `warmtide up` would be started with. Out: every finding. Never: stops at a check that
breaks: it becomes a finding itself.
"""

from collections.abc import Iterator
from importlib.metadata import entry_points

from gateway.doctor import look_machine, look_services
from gateway.doctor.finding import Check, Finding, Setup, fail
from gateway.plugins import CHECKS
from gateway.progress import Steps

BUILT_IN: tuple[tuple[str, Check], ...] = (
    ("versions", look_machine.versions),
    ("plug-ins", look_machine.plugins),
    ("ports", look_machine.ports),
    ("state-dir", look_machine.folder),
    ("leftovers", look_machine.leftovers),
    ("open-files", look_machine.open_files),
    ("memory", look_machine.memory),
    ("clock", look_machine.clock),
    ("catalog", look_services.catalog),
    ("endpoints", look_services.endpoints),
    ("llamacpp", look_services.llamacpp),
    ("vllm", look_services.vllm),
    ("gateway", look_services.gateway),
)


def examine(setup: Setup, shown: Steps) -> list[Finding]:
    """Every check in turn."""
    findings: list[Finding] = []
    for name, check in (*BUILT_IN, *_plugged()):
        shown.step(f"checking {name}")
        try:
            findings += check(setup)
        except Exception as error:  # a doctor who faints helps nobody
            found = f"this check broke: {type(error).__name__}: {error}"
            findings.append(fail(name, found, "report this, with the output of `warmtide doctor`"))
    return findings


def _plugged() -> Iterator[tuple[str, Check]]:
    """One that cannot be loaded is told by the check of plug-ins."""
    for entry in sorted(entry_points(group=CHECKS), key=lambda e: e.name):
        try:
            check: Check = entry.load()
        except Exception:
            continue
        yield entry.name, check
