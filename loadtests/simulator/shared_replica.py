"""One replica of a node of world W: where it stands, what it has given away while it drains.

In: what its node does to it. Out: its state as others see it, KV bytes released. Never: moves by
itself, knows its neighbours.
"""

from math import floor

from loadtests.simulator.engine import Engine
from placement.catalog import ModelSpec, NodeId, ReplicaId
from placement.engines.emulated_batch import BLOCK_TOKENS
from placement.service_time import kv_tokens
from placement.snapshot import Phase, ReplicaState, Rung


class SharedReplica:
    """Mutable: its node owns it."""

    def __init__(
        self, node_id: str, engine: Engine, gpu_ids: tuple[int, ...], endpoint: str
    ) -> None:
        self.replica_id = engine.replica_id
        self.node_id = node_id
        self.engine = engine
        self.spec: ModelSpec = engine.spec
        self.gpu_ids = gpu_ids
        self.endpoint = endpoint
        self.rung = Rung.WARM
        self.phase = Phase.STARTING
        self.action_id = ""
        self.target: Rung | None = None
        self.eta_us = 0
        self.since_us = 0
        self.to_copy: set[int] = set()
        """GPUs to which its weights have not been copied wholly."""
        self.grouped = False
        """All its GPUs have their weights, and know each other."""
        self.releases = False
        self._released_blocks = 0
        self._kv_tokens = kv_tokens(self.spec)

    @property
    def busy(self) -> bool:
        return self.engine.busy

    @property
    def released_bytes(self) -> int:
        blocks = self._kv_tokens // BLOCK_TOKENS
        return self.spec.kv_cache_bytes * self._released_blocks // blocks if blocks else 0

    def state(self) -> ReplicaState:
        return ReplicaState(
            replica_id=ReplicaId(self.replica_id),
            model_id=self.spec.id,
            node_id=NodeId(self.node_id),
            gpu_ids=self.gpu_ids,
            rung=self.rung,
            phase=self.phase,
            endpoint=self.endpoint,
            slots=self.spec.max_num_seqs,
            since_us=self.since_us,
            action_id=self.action_id,
            target=self.target,
            eta_us=self.eta_us,
            released_bytes=self.released_bytes,
        )

    def moves(self, action_id: str, target: Rung, eta_us: int) -> None:
        self.action_id, self.target, self.eta_us = action_id, target, eta_us

    def rests(self, rung: Rung, now_us: int) -> None:
        self.rung, self.phase, self.since_us = rung, Phase.READY, now_us
        self.action_id, self.target, self.eta_us = "", None, 0

    def release(self) -> bool:
        """Give away the KV blocks that the requests left will not need; whether there were any.

        Free blocks are kept for the share of a full batch that still runs, and never fewer than the
        longest of them may come to need alone.
        """
        running = self.engine.requests.values()
        blocks = self._kv_tokens // BLOCK_TOKENS
        used = -(-self.engine.batch.kv_used // BLOCK_TOKENS)
        kept = used + floor(blocks * len(running) / self.spec.max_num_seqs)
        longest = max((r.prompt_tokens + r.output_tokens for r in running), default=0)
        kept = max(kept, -(-longest // BLOCK_TOKENS))
        if blocks - kept <= self._released_blocks:
            return False
        self._released_blocks = blocks - kept
        self.engine.batch.kv_tokens = self._kv_tokens - self._released_blocks * BLOCK_TOKENS
        return True

    def regain(self) -> None:
        """Its engine is gone, and the next one gets a whole cache."""
        self.releases, self._released_blocks = False, 0
        self.engine.batch.kv_tokens = self._kv_tokens
        self.engine.on_end = None
