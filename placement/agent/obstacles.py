"""What stands in the way of an action, bytes apart: unknown names, illegal edges, busy neighbours.

In: an action, the replicas held, the models known, who has running requests. Out: the first
`Shortage`, or None. Never: counts bytes (the ledger does), changes anything, reads a clock.
"""

from collections.abc import Mapping

from placement import feasibility as fit
from placement.agent.book import Held
from placement.catalog import EngineKind, Frozen, ModelSpec, NodeSpec
from placement.edges import lack_of, legal_steps
from placement.feasibility import Shortage
from placement.plan import (
    Action,
    Drain,
    Evict,
    Fetch,
    Park,
    Promote,
    RefusalCode,
    Restore,
    Shed,
    Start,
    StepAction,
    Warm,
    stepping_down,
    target_rung,
)
from placement.snapshot import Rung

DRIVEN = (EngineKind.EMULATED, EngineKind.LLAMACPP, EngineKind.VLLM)


class Scene(Frozen, frozen=True, kw_only=True):
    """What an action is judged against."""

    node: NodeSpec
    models: Mapping[str, ModelSpec]
    held: Mapping[str, Held]
    busy: frozenset[str] = frozenset()


def disturbed(action: Action, held: Mapping[str, Held]) -> list[str]:
    """Serving replicas that must be without requests for this action to be taken."""
    down = stepping_down(action)
    return [n for n in down if n in held and held[n].state.rung is Rung.SERVING]


def obstacle(action: Action, scene: Scene) -> Shortage | None:
    """Everything that stands in the way but bytes."""
    match action:
        case Fetch():
            return _unknown_model(scene, action.model_id)
        case Start():
            return _start_obstacle(scene, action)
        case Drain(release_kv=True):
            return Shortage(
                code=RefusalCode.UNSUPPORTED,
                message="stock vLLM releases its KV cache wholly or not at all: drain, then step",
            )
        case Drain() | Restore():
            return _unready(scene, action.replica_id) or _not_serving(scene, action.replica_id)
        case Evict():
            return _down_obstacle(scene, action.replica_id, None)
        case Park() | Shed() | Warm() | Promote():
            return _step_obstacle(scene, action)


def _start_obstacle(scene: Scene, action: Start) -> Shortage | None:
    if (unknown := _unknown_model(scene, action.model_id)) is not None:
        return unknown
    spec = scene.models[action.model_id]
    if action.replica_id in scene.held:
        return Shortage(
            code=RefusalCode.DUPLICATE_REPLICA,
            message=f"{action.replica_id} exists already; give a new replica a new name",
        )
    if action.to is not Rung.SERVING:
        return Shortage(
            code=RefusalCode.UNSUPPORTED,
            message=f"a stock engine starts up to serving, not to {action.to.name}: step it down",
        )
    if spec.engine not in DRIVEN:
        return Shortage(
            code=RefusalCode.UNSUPPORTED,
            message=f"this agent drives {', '.join(DRIVEN)} engines, not {spec.engine}",
        )
    replicas = [h.state for h in scene.held.values()]
    return (
        fit.wrong_gpu_set(spec, scene.node, action.gpu_ids)
        or fit.start_in_the_way(replicas, action.gpu_ids)
        or fit.freeing_in_the_way(replicas, action.gpu_ids)
    )


def _step_obstacle(scene: Scene, action: StepAction) -> Shortage | None:
    if (unready := _unready(scene, action.replica_id)) is not None:
        return unready
    at, to = scene.held[action.replica_id].state.rung, target_rung(action)
    if to < at:
        return _down_obstacle(scene, action.replica_id, to)
    if (illegal := _illegal(scene, action.replica_id, to)) is not None:
        return illegal
    victims = action.victims if isinstance(action, Promote) else ()
    names = [action.replica_id, *(v.replica_id for v in victims)]
    if len(set(names)) != len(names):
        return Shortage(
            code=RefusalCode.ILLEGAL_EDGE, message="a replica is named twice in one promotion"
        )
    found = (_victim_obstacle(scene, v.replica_id, v.to) for v in victims)
    return next((shortage for shortage in found if shortage is not None), None)


def _victim_obstacle(scene: Scene, replica_id: str, to: Rung | None) -> Shortage | None:
    if (unready := _unready(scene, replica_id)) is not None:
        return unready
    if to is not None and to >= scene.held[replica_id].state.rung:
        return Shortage(
            code=RefusalCode.ILLEGAL_EDGE,
            message=f"victim {replica_id} must step down, not to {to.name}",
        )
    return _down_obstacle(scene, replica_id, to)


def _down_obstacle(scene: Scene, replica_id: str, to: Rung | None) -> Shortage | None:
    if (unready := _unready(scene, replica_id)) is not None:
        return unready
    if to is not None and (illegal := _illegal(scene, replica_id, to)) is not None:
        return illegal
    if replica_id in scene.busy:
        return Shortage(
            code=RefusalCode.BUSY,
            message=f"{replica_id} has running requests; drain it and wait",
        )
    neighbours = [h.state for h in scene.held.values()]
    return fit.start_in_the_way(neighbours, scene.held[replica_id].state.gpu_ids)


def _unknown_model(scene: Scene, model_id: str) -> Shortage | None:
    if model_id in scene.models:
        return None
    return Shortage(
        code=RefusalCode.UNKNOWN_MODEL, message=f"{model_id} is not in this agent's catalog"
    )


def _unready(scene: Scene, replica_id: str) -> Shortage | None:
    held = scene.held.get(replica_id)
    if held is None:
        return Shortage(
            code=RefusalCode.UNKNOWN_REPLICA,
            message=f"no replica {replica_id} on {scene.node.id}",
        )
    if held.state.action_id:
        return Shortage(
            code=RefusalCode.IN_TRANSITION,
            message=f"{replica_id} is busy with action {held.state.action_id}",
        )
    return None


def _not_serving(scene: Scene, replica_id: str) -> Shortage | None:
    if scene.held[replica_id].state.rung is Rung.SERVING:
        return None
    return Shortage(
        code=RefusalCode.ILLEGAL_EDGE,
        message=f"{replica_id} is not serving: there is nothing to drain or restore",
    )


def _illegal(scene: Scene, replica_id: str, to: Rung) -> Shortage | None:
    held = scene.held[replica_id]
    if not held.spec.on_gpu:
        return Shortage(
            code=RefusalCode.UNSUPPORTED,
            message=f"{replica_id} runs on the CPU: it can be started and evicted only",
        )
    if (lack := lack_of(held.state, to)) is not None:
        return Shortage(code=RefusalCode.UNSUPPORTED, message=f"{replica_id}: {lack.why}")
    if (held.state.rung, to) in legal_steps(held.spec):
        return None
    return Shortage(
        code=RefusalCode.ILLEGAL_EDGE,
        message=f"{replica_id}: {held.state.rung.name} → {to.name} is no edge",
    )
