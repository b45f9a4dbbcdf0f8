"""Policies of other packages, by entry points, beside the built-in ones. An edge.

In: a name; entry points of `warmtide.policies`, each of them a `PolicyFactory`. Out: the policy's
factory, the relaxation, or an `UnknownPolicyError` that lists what there is. Never: replaces a
built-in policy, loads a package that was not asked for.
"""

from importlib.metadata import EntryPoint, entry_points

from loadtests.baselines.registry import POLICIES, RELAXATIONS, Relaxation
from loadtests.simulator.port import PolicyFactory

GROUP = "warmtide.policies"


class UnknownPolicyError(Exception):
    """No policy of this name, or one that cannot be loaded: what it is, and what to do about it."""


def policy_names() -> list[str]:
    """All that can be asked for, the built-in ones first."""
    built_in = [*POLICIES, *RELAXATIONS]
    return [*built_in, *sorted({e.name for e in entry_points(group=GROUP)} - set(built_in))]


def policy_named(name: str) -> PolicyFactory | Relaxation:
    """A relaxation is told apart by `name in RELAXATIONS`."""
    if name in RELAXATIONS:
        return RELAXATIONS[name]
    if name in POLICIES:
        return POLICIES[name]
    for entry in entry_points(group=GROUP, name=name):
        return _loaded(entry)
    known = ", ".join(policy_names())
    raise UnknownPolicyError(f"no policy is called {name!r}; there are {known}")


def _loaded(entry: EntryPoint) -> PolicyFactory:
    try:
        found: PolicyFactory = entry.load()
    except Exception as error:  # another package's code may raise anything
        package = entry.dist.name if entry.dist else entry.value
        raise UnknownPolicyError(
            f"policy {entry.name!r} cannot be loaded ({type(error).__name__}: {error}): "
            f"mend or remove the package {package}"
        ) from error
    return found
