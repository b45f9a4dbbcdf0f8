"""A node of emulated engines: starts, sleeps and wakes in stock vLLM's manner, traps included.

In: calls of the development endpoints, and the time. Out: `Verdict`s, node events, the next time
at which something ends. Never: awaits, reads a clock, speaks HTTP, makes text.

What stock vLLM does and this does too: a start needs its whole footprint free and dies when a
neighbour frees memory while it profiles; level 1 → level 2 answers 200 and does nothing; a wake
that names an awake tag is ignored with 200; level 2 without a reload answers garbage; the KV cache
is released only after a completed pause; pinned host memory is never given back.
"""

from typing import Literal, NamedTuple, TypeAlias

from placement import constants as c
from placement.catalog import Faults, Frozen, ModelSpec, NodeSpec
from placement.edges import Edge, footprint_bytes, start_edge, step_edge
from placement.engines.emulated_links import Movers
from placement.engines.emulated_memory import NodeMemory, OutOfMemoryError
from placement.engines.emulated_replica import TAGS, EmulatedReplica, Weights
from placement.snapshot import Rung, WeightsAt

US = 1_000_000


class HostSpec(Frozen, frozen=True, kw_only=True):
    """What an engine-host process is told in its spec file."""

    node: NodeSpec
    time_scale: float
    anchor_us: int
    seed: int
    token_file: str
    ready_file: str
    control_port: int = 0


class ReplicaRequest(Frozen, frozen=True, kw_only=True):
    """Body of `POST /host/replicas`."""

    replica_id: str
    model: ModelSpec
    gpu_ids: tuple[int, ...]
    weights_at: WeightsAt = WeightsAt.HOST
    port: int = 0


class FaultsRequest(Frozen, frozen=True, kw_only=True):
    """Body of `POST /host/faults`."""

    model_id: str
    faults: Faults


class Verdict(NamedTuple):
    """An HTTP status and what to say with it."""

    status: int
    message: str = ""


class Ready(NamedTuple):
    replica_id: str
    at_us: int


class Exited(NamedTuple):
    replica_id: str
    at_us: int
    message: str


class DeedEnded(NamedTuple):
    """A sleep, wake, release or reload that took time ended."""

    replica_id: str
    at_us: int
    verdict: Verdict


NodeEvent: TypeAlias = Ready | Exited | DeedEnded
_OK = Verdict(200)


class _Deed(NamedTuple):
    kind: Literal["park", "shed", "release", "wake", "reload"]
    weights: bool = False
    kv: bool = False
    fails: bool = False


def start_phases(spec: ModelSpec, weights_at: WeightsAt) -> tuple[Edge, Edge]:
    """A start in two: the process boots and loads, then it profiles, compiles and captures."""
    whole = start_edge(spec, weights_at)
    boot_us = min(int(c.START_FIXED_S.value * US), whole.fixed_us)
    return (
        Edge(fixed_us=boot_us, transfers=whole.transfers),
        Edge(fixed_us=whole.fixed_us - boot_us),
    )


class EmulatedNode:
    """All engines of one node. Calls come in order of time; events wait for `advance`."""

    def __init__(self, node: NodeSpec, seed: int) -> None:
        self.node = node
        self.memory = NodeMemory(node)
        self.replicas: dict[str, EmulatedReplica] = {}
        self._seed = seed
        self._movers = Movers(node.links)
        self._deeds: dict[str, _Deed] = {}
        self._events: list[NodeEvent] = []
        self._faults: dict[str, Faults] = {}

    def next_us(self) -> int | None:
        return self._movers.next_us()

    def advance(self, now_us: int) -> list[NodeEvent]:
        """Everything that ended by `now_us`, and what earlier calls caused at once."""
        while (next_us := self._movers.next_us()) is not None and next_us <= now_us:
            for ended in self._movers.advance(next_us):
                replica_id, _, phase = ended.key.rpartition("/")
                self._phase_ended(replica_id, phase, ended.at_us)
        self._movers.advance(now_us)
        events, self._events = self._events, []
        return events

    def set_faults(self, model_id: str, faults: Faults) -> None:
        """For the model's replicas that live, and those to come."""
        self._faults[model_id] = faults
        for replica in self.replicas.values():
            if replica.spec.id == model_id:
                replica.faults = faults

    # Start and end.

    def start(self, request: ReplicaRequest, now_us: int) -> EmulatedReplica:
        """Begin a start. Where vLLM would raise at once, the replica has exited on return."""
        assert request.replica_id not in self.replicas, f"{request.replica_id} exists already"
        replica = EmulatedReplica(
            request.replica_id, request.model, request.gpu_ids, self.node.gpu_type, self._seed
        )
        replica.faults = self._faults.get(request.model.id, request.model.faults)
        self.replicas[request.replica_id] = replica
        problem = self._start_problem(replica)
        if problem:
            self._exit(replica, now_us, problem)
            return replica
        self._begin(replica, "boot", start_phases(replica.spec, request.weights_at)[0], now_us)
        return replica

    def end(self, replica_id: str, now_us: int) -> bool:
        """End an engine and forget it. False if it is unknown."""
        replica = self.replicas.get(replica_id)
        if replica is None:
            return False
        self.crash(replica_id, now_us, "ended by its agent")
        del self.replicas[replica_id]
        return True

    def crash(self, replica_id: str, now_us: int, message: str) -> None:
        """The process is gone: memory freed, streams cut. The record stays until `end`."""
        replica = self.replicas[replica_id]
        if replica.state != "exited":
            self._exit(replica, now_us, message)

    def _start_problem(self, replica: EmulatedReplica) -> str:
        """Take the footprint, or say why vLLM would not start."""
        for other in self.replicas.values():
            shared = set(other.gpu_ids) & set(replica.gpu_ids)
            if other is not replica and other.state == "starting" and shared:
                return (
                    f"ValueError: another engine ({other.replica_id}) is starting on GPU "
                    f"{min(shared)}; its memory profile would count this one's. Start one at a time"
                )
        owner = replica.replica_id
        try:
            self.memory.set_host(owner, replica.host_bytes())
            self.memory.set_gpus(owner, replica.gpu_ids, footprint_bytes(replica.spec))
        except OutOfMemoryError as error:
            self.memory.drop(owner)
            return (
                f"ValueError: Free memory on startup ({error.free_bytes / 2**30:.2f} GiB) is less "
                f"than the desired memory ({error.need_bytes / 2**30:.2f} GiB): {error}"
            )
        return ""

    def _exit(self, replica: EmulatedReplica, now_us: int, message: str) -> None:
        owner = replica.replica_id
        held = any(self.memory.held(owner, g) for g in replica.gpu_ids)
        for phase in ("boot", "profile", "deed"):
            self._movers.cancel(f"{owner}/{phase}", now_us)
        self._deeds.pop(owner, None)
        replica.state, replica.exit_message, replica.profiling = "exited", message, False
        replica.batch.pause("abort")
        self.memory.drop(owner)
        self._events.append(Exited(owner, now_us, message))
        if held:
            self._freed(replica, now_us)

    def _freed(self, by: EmulatedReplica, now_us: int) -> None:
        """A start that profiles beside freed memory trips vLLM's assertion."""
        for other in list(self.replicas.values()):
            if other.profiling and other is not by and set(other.gpu_ids) & set(by.gpu_ids):
                self._exit(
                    other,
                    now_us,
                    "AssertionError: Error in memory profiling. Initial free memory is less than "
                    f"current free memory: {by.replica_id} freed memory on the same GPU meanwhile",
                )

    def in_transition(self, replica_id: str) -> bool:
        """Whether a sleep, wake, release or reload is under way."""
        return replica_id in self._deeds

    # The development endpoints. None means: under way, a `DeedEnded` follows.

    def pause(self, replica_id: str, mode: str) -> list[int]:
        """Pause scheduling; ids of aborted sequences. With `wait` poll `batch.drained`."""
        replica = self.replicas[replica_id]
        replica.level = 0
        return replica.batch.pause(mode)

    def sleep(self, replica_id: str, level: int, now_us: int) -> Verdict | None:
        """Levels 0 to 2, after `pause` (and its drain)."""
        replica = self.replicas[replica_id]
        replica.sleep_echo = ("", "weights_offloaded", "discard_all")[level]
        if level == 0 or replica.weights is not Weights.RESIDENT:
            # Already asleep: the allocator has nothing tagged awake, so vLLM does nothing, 200.
            return _OK
        kind: Literal["park", "shed"] = "park" if level == 1 else "shed"
        if kind == "park" and not replica.pinned_kept:
            replica.pinned_kept = True
            try:
                self.memory.set_host(replica_id, replica.host_bytes())
            except OutOfMemoryError as error:
                replica.pinned_kept = False
                return Verdict(500, f"pinning host memory failed: {error}")
        replica.leaking = replica.happens("memory_not_freed", replica.faults.memory_not_freed)
        replica.batch.forget_prefixes()
        to = Rung.PARKED if kind == "park" else Rung.SHED
        self._begin_deed(replica, _Deed(kind), step_edge(replica.spec, replica.rung, to), now_us)
        return None

    def release_kv(self, replica_id: str, now_us: int) -> Verdict | None:
        replica = self.replicas[replica_id]
        if not replica.batch.paused:
            return Verdict(500, "release_kv_cache_memory needs a level-0 pause first")
        if replica.batch.running or replica.batch.waiting:
            return Verdict(500, "release_kv_cache_memory: requests are still in the scheduler")
        if not replica.resident:
            return Verdict(500, "release_kv_cache_memory: not all memory is resident")
        replica.sleep_echo = ""
        replica.leaking = replica.happens("memory_not_freed", replica.faults.memory_not_freed)
        replica.batch.forget_prefixes()
        edge = step_edge(replica.spec, Rung.SERVING, Rung.WARM)
        self._begin_deed(replica, _Deed("release"), edge, now_us)
        return None

    def wake(self, replica_id: str, tags: tuple[str, ...], now_us: int) -> Verdict | None:
        """Wake these tags, or all. Tags already awake are ignored."""
        replica = self.replicas[replica_id]
        asked = tags or TAGS
        weights = "weights" in asked and replica.weights is not Weights.RESIDENT
        kv = "kv_cache" in asked and not replica.kv_resident
        if replica.broken:
            return Verdict(500, "CUDA error: an earlier wake failed half-way; restart the engine")
        if not weights and not kv:
            if "scheduling" in asked and replica.resident:
                self._resume(replica)
            return _OK
        fails = replica.happens("failed_wake", replica.faults.failed_wake)
        deed = _Deed("wake", weights=weights, kv=kv and not (fails and weights), fails=fails)
        try:
            self._take_for_wake(replica, deed)
        except OutOfMemoryError as error:
            replica.broken = True
            return Verdict(500, f"CUDA error: {error}")
        self._begin_deed(replica, deed, replica.wake_edge(weights, kv), now_us)
        return None

    def reload_weights(self, replica_id: str, now_us: int) -> Verdict | None:
        replica = self.replicas[replica_id]
        if replica.weights is not Weights.RESIDENT:
            return Verdict(500, "reload_weights: the weights' memory is asleep; wake it first")
        self._begin_deed(replica, _Deed("reload"), replica.reload_edge(), now_us)
        return None

    def reset_prefix_cache(self, replica_id: str) -> Verdict:
        self.replicas[replica_id].batch.forget_prefixes()
        return _OK

    def _take_for_wake(self, replica: EmulatedReplica, deed: _Deed) -> None:
        """Memory is mapped before bytes move. A leaking sleeper still has it."""
        has_weights = replica.weights is Weights.RESIDENT or deed.weights
        n_bytes = replica.gpu_bytes(has_weights, replica.kv_resident or deed.kv)
        held = self.memory.held(replica.replica_id, replica.gpu_ids[0])
        self.memory.set_gpus(replica.replica_id, replica.gpu_ids, max(n_bytes, held))

    def _resume(self, replica: EmulatedReplica) -> None:
        replica.sleep_echo = "awake"
        replica.batch.resume()

    def _begin(self, replica: EmulatedReplica, phase: str, edge: Edge, now_us: int) -> None:
        slowdown = replica.faults.link_slowdown
        self._movers.begin(f"{replica.replica_id}/{phase}", edge, now_us, slowdown)

    def _begin_deed(self, replica: EmulatedReplica, deed: _Deed, edge: Edge, now_us: int) -> None:
        owner = replica.replica_id
        assert owner not in self._deeds, f"{owner} is in the middle of another transition"
        self._deeds[owner] = deed
        self._begin(replica, "deed", edge, now_us)

    def _phase_ended(self, replica_id: str, phase: str, at_us: int) -> None:
        replica = self.replicas[replica_id]
        if phase == "boot":
            replica.profiling = True
            self._begin(replica, "profile", start_phases(replica.spec, WeightsAt.HOST)[1], at_us)
        elif phase == "profile":
            replica.profiling, replica.state = False, "ready"
            self._events.append(Ready(replica_id, at_us))
        else:
            deed = self._deeds.pop(replica_id)
            verdict = self._end_deed(replica, deed, at_us)
            self._events.append(DeedEnded(replica_id, at_us, verdict))

    def _end_deed(self, replica: EmulatedReplica, deed: _Deed, at_us: int) -> Verdict:
        match deed.kind:
            case "park":
                self._let_go(replica, Weights.PINNED, at_us)
            case "shed":
                self._let_go(replica, Weights.DROPPED, at_us)
            case "release":
                self._let_go(replica, replica.weights, at_us)
            case "reload":
                replica.garbage = False
            case "wake":
                return self._end_wake(replica, deed)
        return _OK

    def _let_go(self, replica: EmulatedReplica, weights: Weights, at_us: int) -> None:
        replica.weights, replica.kv_resident = weights, False
        if not replica.leaking:
            n_bytes = replica.gpu_bytes(weights is Weights.RESIDENT, kv=False)
            self.memory.set_gpus(replica.replica_id, replica.gpu_ids, n_bytes)
            self._freed(replica, at_us)

    def _end_wake(self, replica: EmulatedReplica, deed: _Deed) -> Verdict:
        if deed.weights:
            replica.garbage = replica.garbage or replica.weights is Weights.DROPPED
            replica.weights = Weights.RESIDENT
        if deed.fails:
            replica.broken = True
            return Verdict(500, "CUDA error: an illegal memory access was encountered on wake-up")
        replica.kv_resident = replica.kv_resident or deed.kv
        if replica.resident:
            replica.leaking = False
            self._resume(replica)
        return _OK
