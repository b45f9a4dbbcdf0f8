"""One emulated engine: what it holds, whether it sleeps, and the faults drawn for it.

In: a `ModelSpec` and named random streams (this module draws, from seeded streams only). Out:
state in stock vLLM's words. Never: knows time, neighbours or HTTP.
"""

import random
from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias

from placement import constants as c
from placement.catalog import Faults, ModelSpec
from placement.edges import Edge, host_bytes, step_edge
from placement.engines.emulated_batch import batch_of
from placement.snapshot import Rung

EngineState: TypeAlias = Literal["starting", "ready", "exited"]
TAGS = ("weights", "kv_cache", "scheduling")
_NOTHING = Edge(fixed_us=0)


class Weights(StrEnum):
    RESIDENT = "resident"
    PINNED = "pinned"
    DROPPED = "dropped"


class Fate(NamedTuple):
    """What a fault does to one request once it has produced `at_token` tokens."""

    kind: Literal["none", "crash", "hang", "half_stream"]
    at_token: int = 0


class EmulatedReplica:
    """State of one engine process."""

    def __init__(
        self, replica_id: str, spec: ModelSpec, gpu_ids: tuple[int, ...], gpu_type: str, seed: int
    ) -> None:
        self.replica_id = replica_id
        self.spec = spec
        self.gpu_ids = gpu_ids
        self.faults: Faults = spec.faults
        self.batch = batch_of(spec, gpu_type)
        self.state: EngineState = "starting"
        self.exit_message = ""
        self.profiling = False
        self.weights = Weights.RESIDENT
        self.kv_resident = True
        self.garbage = False
        """Weights were woken after a level-2 sleep and not reloaded: answers are nonsense."""
        self.leaking = False
        """The last sleep said 200 and freed nothing."""
        self.broken = False
        """A wake failed half-way. Stock vLLM is not to be trusted after that."""
        self.pinned_kept = False
        self.sleep_echo = "awake"
        self.level = 0
        self.loras: dict[str, str] = {}
        self._seed = seed
        self._streams: dict[str, random.Random] = {}

    def stream(self, purpose: str) -> random.Random:
        """One named stream per purpose: a new draw here never shifts the draws over there."""
        found = self._streams.get(purpose)
        if found is None:
            found = random.Random(f"{self._seed}/{self.replica_id}/{purpose}")
            self._streams[purpose] = found
        return found

    def happens(self, purpose: str, share: float) -> bool:
        return share > 0 and self.stream(purpose).random() < share

    def fate(self, output_tokens: int) -> Fate:
        """Draw what befalls a request that will answer with `output_tokens`."""
        if self.happens("crash", self.faults.crash_per_request):
            return Fate("crash", self.stream("crash").randrange(output_tokens))
        if self.happens("hang", self.faults.hang_per_request):
            return Fate("hang", 1)
        if self.happens("half_stream", self.faults.half_stream_per_request):
            return Fate("half_stream", self.stream("half_stream").randint(1, output_tokens))
        return Fate("none")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.spec.id, *self.spec.aliases, *self.loras)

    @property
    def resident(self) -> bool:
        return self.weights is Weights.RESIDENT and self.kv_resident

    @property
    def is_sleeping(self) -> bool:
        """True until every tag is awake; also while scheduling is paused."""
        return not self.resident or self.batch.paused

    @property
    def status(self) -> str:
        return "sleeping" if self.is_sleeping else "awake"

    @property
    def sleep_word(self) -> str:
        """For `GET /host/replicas`: what is really so, unlike the metric."""
        if self.weights is Weights.PINNED:
            return "level1"
        if self.weights is Weights.DROPPED:
            return "level2"
        if not self.kv_resident:
            return "half_awake" if self.broken else "kv_released"
        return "level0" if self.batch.paused else "awake"

    @property
    def rung(self) -> Rung:
        """The rung its memory stands on, for rows of the edge table."""
        if self.weights is Weights.PINNED:
            return Rung.PARKED
        if self.weights is Weights.DROPPED:
            return Rung.SHED
        return Rung.SERVING if self.kv_resident else Rung.WARM

    def gpu_bytes(self, weights: bool, kv: bool) -> int:
        """Bytes on each GPU with these tags resident; agrees with `edges.gpu_bytes`."""
        held = self.spec.residue_bytes
        held += self.spec.weights_per_gpu_bytes if weights else 0
        return held + (self.spec.kv_cache_bytes + int(c.ACTIVATIONS_BYTES.value) if kv else 0)

    def host_bytes(self) -> int:
        """RSS. The pinned allocator keeps a freed block, so a park is paid for once and for all."""
        return host_bytes(self.spec, Rung.PARKED if self.pinned_kept else Rung.SERVING)

    def wake_edge(self, weights: bool, kv: bool) -> Edge:
        """Level 2 merely maps memory here; its bytes come with `reload_edge`."""
        by_weights, by_kv = _NOTHING, _NOTHING
        if weights and self.weights is Weights.PINNED:
            by_weights = step_edge(self.spec, Rung.PARKED, Rung.WARM)
        elif weights:
            by_weights = Edge(fixed_us=_WAKE_FIXED_US)
        if kv:
            by_kv = step_edge(self.spec, Rung.WARM, Rung.SERVING)
        return Edge(
            fixed_us=by_weights.fixed_us + by_kv.fixed_us,
            transfers=by_weights.transfers + by_kv.transfers,
        )

    def reload_edge(self) -> Edge:
        """What is left of shed → warm after the wake itself."""
        whole = step_edge(self.spec, Rung.SHED, Rung.WARM)
        return Edge(fixed_us=whole.fixed_us - _WAKE_FIXED_US, transfers=whole.transfers)


_WAKE_FIXED_US = int(c.WAKE_FIXED_S.value * 1_000_000)
