"""A restarted agent and the engines that outlived its predecessor: adopted, or ended. ✎

In: the book as it was last written, the engines that live. Out: a ledger that tells the truth.
Whatever was at rest and still lives is kept. Whatever was between two rungs is kept where its state
can be known, and ended where it cannot. Engines that nobody wrote down are ended.
"""

import logging
from collections.abc import Coroutine
from typing import Any

from placement.agent.book import Held
from placement.agent.deeds import Deeds
from placement.engines.base import EngineError, Living
from placement.plan import Action, Drain, Evict, OutcomeStatus, Restore, Start
from placement.snapshot import Rung

log = logging.getLogger(__name__)

RESTARTED = "the agent was restarted meanwhile"


async def adopt(deeds: Deeds) -> list[Coroutine[Any, Any, None]]:
    """Make ledger and engines agree. Returns the starts that go on, for the caller to run."""
    living = await find_living(deeds)
    await end_strays(deeds, living)
    for held in list(deeds.ledger.held.values()):
        found = living.get(held.state.replica_id)
        if found is None or found.state == "exited":
            log.warning("%s did not outlive the former agent", held.state.replica_id)
            await deeds.end(held)
        elif found.endpoint and found.endpoint != held.state.endpoint:
            deeds.ledger.learned(held.state.replica_id, endpoint=found.endpoint)
    going_on: list[Coroutine[Any, Any, None]] = []
    for running in list(deeds.ledger.running.values()):
        action = running.action
        if isinstance(action, Start) and action.replica_id in deeds.ledger.held:
            going_on.append(deeds.resume_start(action))
        else:
            await _settle(deeds, action, living)
    return going_on


async def find_living(deeds: Deeds, *, patience: int = 0) -> dict[str, Living]:
    """All engines on this node, of every kind. Without patience, a kind that hangs is ended."""
    found: dict[str, Living] = {}
    for kind, driver in deeds.drivers.items():
        try:
            found |= await driver.living()
        except EngineError as error:
            if patience > 0:
                raise
            log.error("ending all %s engines: %s", kind, error)  # noqa: TRY400  for people
            await driver.abandon()
    return found


async def end_strays(deeds: Deeds, living: dict[str, Living]) -> None:
    """Engines that the ledger does not know hold memory that it would promise to others."""
    for replica_id in living.keys() - deeds.ledger.held.keys():
        log.warning("ending stray engine %s", replica_id)
        for driver in deeds.drivers.values():
            await driver.end(replica_id)


async def _settle(deeds: Deeds, action: Action, living: dict[str, Living]) -> None:
    """Close an action that the former agent left half done."""
    wanted: dict[str, Rung | None] = {}
    for held in deeds.ledger.moved_by(action.action_id):
        wanted[held.state.replica_id] = held.state.target
        await _place(deeds, held, living[held.state.replica_id])
    there = {r: h.state.rung if (h := deeds.ledger.held.get(r)) else None for r in wanted}
    done = isinstance(action, Evict | Drain | Restore) or (bool(wanted) and there == wanted)
    status = OutcomeStatus.DONE if done else OutcomeStatus.FAILED
    deeds.report(action, status, RESTARTED)


async def _place(deeds: Deeds, held: Held, found: Living) -> None:
    """Write down where a replica stands, or end it where nobody can tell."""
    replica_id, rung = held.state.replica_id, found.rung
    if rung is None or not _certain(held.state.rung, held.state.target, rung):
        await deeds.end(held)
        return
    if rung is Rung.SERVING:
        try:
            await deeds.prove(replica_id)
        except EngineError as error:
            log.warning("%s is ended, not adopted: %s", replica_id, error)
            await deeds.end(held)
            return
    deeds.ledger.landed(replica_id, rung, deeds.clock.now_us())


def _certain(at: Rung, target: Rung | None, found: Rung) -> bool:
    """Arrived, or not yet asked to leave. An engine that is being woken still looks asleep, and
    one that woke from shed may not have reloaded its weights, which only a canary would show.
    """
    if found is target:
        return (at, target) != (Rung.SHED, Rung.WARM)
    return target is not None and found is at is Rung.SERVING
