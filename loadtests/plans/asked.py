"""A plan made of recorded facts, with all that explains it. Pure.

In: a record, a policy's name. Out: `Asked`; or an `AskedError` with what to do. Never: reads
a file, lets a mistake in the facts end as a traceback.
"""

from typing import NamedTuple

from loadtests.errors import AskedError, no_such
from placement.planning.explained import PLANS, Explained, explained
from placement.planning.recorded import Recorded


class Asked(NamedTuple):
    record: Recorded
    explained: Explained
    notes: tuple[str, ...]
    """What whoever reads the plan should know of how it was made."""


def asked(record: Recorded, policy: str, where: str) -> Asked:
    """The plan that a policy makes of these facts, and all that explains it."""
    name, notes = _policy(record, policy)
    facts = record.facts()
    try:
        found = explained(facts, PLANS[name], name)
    except Exception as error:  # the facts of a stranger may break any rule of ours
        raise AskedError(
            f"{where}: {name} cannot plan on it ({type(error).__name__}: {error}): these facts "
            "contradict themselves. Record them anew; if nobody edited them, it is a mistake of "
            "ours: report it with the file"
        ) from None
    return Asked(record, found, tuple(notes))


def _policy(record: Recorded, given: str) -> tuple[str, list[str]]:
    """Who decides: whoever was asked for, else who did, else the reactive policy."""
    if given and given not in PLANS:
        raise AskedError(no_such("policy", given, tuple(PLANS)))
    notes = []
    name = given or (record.policy if record.policy in PLANS else "reactive")
    if not given and name != record.policy:
        notes.append(f"recorded under {record.policy}, which cannot be explained: {name} decides")
    if name == "warmtide" and record.outlook is None:
        notes.append("nothing was forecast when it was recorded, so warmtide decides reactively")
    return name, notes
