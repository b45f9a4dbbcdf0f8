"""What stands on each GPU and node, in bytes, as data for a picture. Pure.

In: nodes as a snapshot or a draft shows them, models, which actions concern which replica. Out: a
`NodePicture` each. What is under way is shown as it will be once it has ended: so a step down to
make room and the start that it makes room for are seen together. Never: draws.
"""

from collections.abc import Mapping
from enum import StrEnum

from placement.catalog import Frozen, ModelSpec, NodeSpec
from placement.edges import (
    Link,
    Transfer,
    legal_steps,
    start_edge,
    step_edge,
    total_rate,
)
from placement.feasibility import (
    ending,
    replica_gpu_bytes,
    replica_host_bytes,
    reserved,
    usable_hbm_bytes,
)
from placement.planning.kinds import weights_at
from placement.snapshot import GpuState, NodeState, Phase, ReplicaState, Rung

US = 1_000_000

Marks = Mapping[str, tuple[int, ...]]
"""By replica: the numbers of the actions that concern it."""


class Stand(StrEnum):
    """What a replica does where it stands. `STARTS`: on its way to serving, from wherever."""

    SERVES = "serves"
    STARTS = "starts"
    DRAINS = "drains"
    WARM = "warm"
    PARKED = "parked"
    SHED = "shed"
    ENDS = "ends"
    FAILED = "failed"
    OTHER = "other"
    """Reserved by the agent for what the catalog does not know."""


_RESTS = {
    Rung.SHED: Stand.SHED,
    Rung.PARKED: Stand.PARKED,
    Rung.WARM: Stand.WARM,
    Rung.SERVING: Stand.SERVES,
}


class Block(Frozen, frozen=True, kw_only=True):
    """One replica on one GPU, or on the host of its node where it has no GPU."""

    stand: Stand
    bytes: int
    replica_id: str = ""
    model_id: str = ""
    moving: bool = False
    """Something is under way with it."""
    actions: tuple[int, ...] = ()


class GpuPicture(Frozen, frozen=True, kw_only=True):
    gpu_id: int
    hbm_bytes: int
    usable_bytes: int
    """What reservations may add up to; the rest is the driver's."""
    reserved_bytes: int
    """With the most that anything under way may come to."""
    free_bytes: int
    """Usable, and in no block."""
    blocks: tuple[Block, ...] = ()
    promised_to: tuple[str, ...] = ()
    """Models for which room is being made here."""


class LinkLoad(Frozen, frozen=True, kw_only=True):
    """What crosses a link of the node for all that is under way, from its beginning to its end."""

    link: Link
    bytes: int
    per_s: int
    """What all streams together get."""

    @property
    def seconds(self) -> float:
        return self.bytes / self.per_s


class Presence(StrEnum):
    THERE = "there"
    LOST = "lost"
    COMING = "coming"
    ABSENT = "absent"


class NodePicture(Frozen, frozen=True, kw_only=True):
    node_id: str
    gpu_type: str
    presence: Presence
    host_bytes: int
    host_reserved_bytes: int = 0
    gpus: tuple[GpuPicture, ...] = ()
    beside: tuple[Block, ...] = ()
    """Replicas without a GPU, with their bytes of host memory."""
    links: tuple[LinkLoad, ...] = ()


def picture(
    node: NodeState,
    spec: NodeSpec,
    models: Mapping[str, ModelSpec],
    marks: Marks,
    promised: Mapping[int, tuple[str, ...]],
) -> NodePicture:
    """One node. `promised`: by GPU, the models for which room is being made there."""
    known = [r for r in node.replicas if r.model_id in models]
    counted = reserved(spec, [(r, models[r.model_id]) for r in known]).gpu_bytes
    on_gpus = sorted((r for r in known if r.gpu_ids), key=lambda r: (-len(r.gpu_ids), r.replica_id))
    return NodePicture(
        node_id=node.node_id,
        gpu_type=spec.gpu_type,
        presence=Presence.THERE if node.alive else Presence.LOST,
        host_bytes=node.host_bytes,
        host_reserved_bytes=node.host_reserved_bytes,
        gpus=tuple(
            _gpu(
                gpu,
                [_on_gpu(r, models[r.model_id], marks) for r in on_gpus if gpu.gpu_id in r.gpu_ids],
                gpu.reserved_bytes - counted.get(gpu.gpu_id, 0),
                promised.get(gpu.gpu_id, ()),
            )
            for gpu in node.gpus
        ),
        beside=tuple(_on_host(r, models[r.model_id], marks) for r in known if not r.gpu_ids),
        links=_links(node, spec, models),
    )


def not_there(spec: NodeSpec, presence: Presence) -> NodePicture:
    """A node of the catalog that is on its way, or that nobody asked for."""
    return NodePicture(
        node_id=spec.id, gpu_type=spec.gpu_type, presence=presence, host_bytes=spec.host_bytes
    )


def _gpu(
    gpu: GpuState, blocks: list[Block], beyond_bytes: int, promised_to: tuple[str, ...]
) -> GpuPicture:
    if beyond_bytes > 0:
        blocks.append(Block(stand=Stand.OTHER, bytes=beyond_bytes))
    usable = usable_hbm_bytes(gpu.hbm_bytes)
    return GpuPicture(
        gpu_id=gpu.gpu_id,
        hbm_bytes=gpu.hbm_bytes,
        usable_bytes=usable,
        reserved_bytes=gpu.reserved_bytes,
        free_bytes=max(usable - sum(b.bytes for b in blocks), 0),
        blocks=tuple(sorted(blocks, key=lambda b: _ORDER[b.stand])),
        promised_to=promised_to,
    )


_ORDER = {stand: at for at, stand in enumerate(Stand)}


def _on_gpu(replica: ReplicaState, spec: ModelSpec, marks: Marks) -> Block:
    to = stands_at(replica)
    held = 0 if to is None else replica_gpu_bytes(replica, spec, to)
    return _block(replica, held, marks)


def _on_host(replica: ReplicaState, spec: ModelSpec, marks: Marks) -> Block:
    to = stands_at(replica)
    held = 0 if to is None else replica_host_bytes(replica, spec, to)
    return _block(replica, held, marks)


def _block(replica: ReplicaState, held: int, marks: Marks) -> Block:
    return Block(
        stand=stand_of(replica),
        bytes=held,
        replica_id=replica.replica_id,
        model_id=replica.model_id,
        moving=bool(replica.action_id),
        actions=marks.get(replica.replica_id, ()),
    )


def stands_at(replica: ReplicaState) -> Rung | None:
    """The rung that it stands on, or will once what is under way has ended; None: its end."""
    return replica.target if replica.action_id else replica.rung


def stand_of(replica: ReplicaState) -> Stand:
    if replica.phase is Phase.FAILED:
        return Stand.FAILED
    if ending(replica):
        return Stand.ENDS
    to = stands_at(replica)
    assert to is not None, "only what ends leads to no rung"
    if replica.action_id and to is Rung.SERVING:
        return Stand.STARTS
    if replica.phase is Phase.DRAINING and to is Rung.SERVING:
        return Stand.DRAINS
    return _RESTS[to]


# --- links


def _links(
    node: NodeState, spec: NodeSpec, models: Mapping[str, ModelSpec]
) -> tuple[LinkLoad, ...]:
    total: dict[Link, int] = {}
    for replica in node.replicas:
        if replica.model_id in models:
            for transfer in _transfers(node, replica, models[replica.model_id]):
                moved = transfer.bytes_per_stream * transfer.streams
                total[transfer.link] = total.get(transfer.link, 0) + moved
    return tuple(
        LinkLoad(link=link, bytes=total[link], per_s=total_rate(spec.links, link))
        for link in Link
        if total.get(link)
    )


def _transfers(node: NodeState, replica: ReplicaState, spec: ModelSpec) -> tuple[Transfer, ...]:
    """What is under way with a replica has to move."""
    to = replica.target
    if not replica.action_id or to is None:
        return ()
    if replica.phase is Phase.STARTING:
        return start_edge(spec, weights_at(node, spec), to).transfers
    if (replica.rung, to) in legal_steps(spec):
        return step_edge(spec, replica.rung, to).transfers
    return ()
