"""What a run came to: fates of requests, GPU time, bytes moved and wasted, a timeline, a digest.

In: what happens, as it happens. Out: a `Run`. Never: decides, changes what it looks at.
"""

import hashlib
from array import array

from loadtests.simulator.engine import Engine
from loadtests.simulator.port import LATE_US, Ending, Moment, Run, SimRequest
from placement.catalog import Catalog, ModelSpec, NodeSpec
from placement.plan import Outcome
from placement.snapshot import ClusterSnapshot, NodeState, ReplicaState, Rung
from prewarm.traces.records import Ints

OPEN = -1
"""Stands in `Run.ending` while a request has not ended."""


class _Holding:
    """What one node holds since its last change."""

    __slots__ = ("gpus", "gpus_serving", "idle_bytes", "paid_since_us", "since_us")

    def __init__(self, gpus: int, now_us: int) -> None:
        self.gpus = gpus
        self.paid_since_us = now_us
        self.since_us = now_us
        self.gpus_serving = 0
        self.idle_bytes = 0


def holds_gpus(replica: ReplicaState) -> bool:
    """Starting, serving, draining, or on its way from or to that."""
    return replica.rung is Rung.SERVING or replica.target is Rung.SERVING


class Meter:
    """Fills one `Run`."""

    def __init__(self, catalog: Catalog) -> None:
        self.run = Run(models=tuple(m.id for m in catalog.models))
        self._models: dict[str, ModelSpec] = {m.id: m for m in catalog.models}
        self.index: dict[str, int] = {m.id: i for i, m in enumerate(catalog.models)}
        self._holdings: dict[str, _Holding] = {}
        self._deeds = hashlib.sha256()

    # --- requests

    def expect(self, model: Ints, arrived_us: Ints) -> None:
        """A slice of requests is to come: their places, filled in as they end."""
        run, count = self.run, len(model)
        run.model.frombytes(model.astype("int16").tobytes())
        run.arrived_us.frombytes(arrived_us.astype("int64").tobytes())
        run.ttft_us.extend(array("q", [LATE_US]) * count)
        run.itl_us.extend(array("i", [-1]) * count)
        run.ending.extend(array("b", [OPEN]) * count)
        run.cold.extend(array("b", [0]) * count)

    def answered(self, request: SimRequest, now_us: int) -> None:
        run, index, tokens = self.run, request.index, request.output_tokens
        run.ending[index] = Ending.ANSWERED
        run.ttft_us[index] = request.first_us - request.arrived_us
        run.itl_us[index] = (now_us - request.first_us) // (tokens - 1) if tokens > 1 else 0
        run.tokens_in += request.prompt_tokens
        run.tokens_out += tokens
        if request.cold:
            run.cold[index] = 1

    def unanswered(self, request: SimRequest, ending: Ending) -> None:
        self.run.ending[request.index] = ending
        self.run.cold[request.index] = request.cold

    # --- what climbs are worth

    def climb(self, engine: Engine, now_us: int) -> None:
        """It begins to climb from a rung on which its weights were on no GPU."""
        engine.climb_began_us, engine.climb_bytes, engine.unused = now_us, 0, True

    def kept(self, engine: Engine, now_us: int) -> None:
        """It steps down and its weights stay: whoever comes from now on is a hit."""
        if not engine.unused:
            engine.climb_began_us, engine.climb_bytes, engine.unused = now_us, 0, True

    def loaded(self, engine: Engine, n_bytes: int) -> None:
        self.run.loads_bytes += n_bytes
        engine.climb_bytes += n_bytes

    def used(self, engine: Engine, request: SimRequest) -> None:
        """The first request since the climb: a hit, if it came after the climb had begun."""
        hit = engine.climb_began_us < request.arrived_us
        self.run.prewarm_hits += hit
        self.run.prewarm_misses += not hit
        engine.unused, engine.climb_bytes = False, 0

    def dropped(self, engine: Engine) -> None:
        """Its weights have left the GPU, or it has ended. Nobody's answer may be lost by that."""
        assert not (engine.serving and engine.busy), f"{engine.replica_id} was dropped while busy"
        self.run.evictions += 1
        self.run.wasted_bytes += engine.climb_bytes
        engine.unused, engine.climb_bytes = False, 0

    def deed(self, outcome: Outcome) -> None:
        told = (outcome.action_id, outcome.verb, outcome.replica_id, outcome.status)
        line = f"{'|'.join(told)}|{outcome.began_us}|{outcome.ended_us}\n"
        self._deeds.update(line.encode())

    # --- nodes

    def paid(self, node: NodeSpec, now_us: int) -> None:
        """A node was asked for: it costs from here on."""
        self._holdings[node.id] = _Holding(node.gpus, now_us)

    def node(self, state: NodeState, now_us: int) -> None:
        """What stands on a node has changed."""
        holding = self._holdings[state.node_id]
        self._settle(holding, now_us)
        busy_gpus = {g for r in state.replicas if holds_gpus(r) for g in r.gpu_ids}
        holding.gpus_serving = len(busy_gpus)
        holding.idle_bytes = self._idle_bytes(state)

    def _idle_bytes(self, state: NodeState) -> int:
        """Weights on GPUs, or on their way there, of replicas that do not serve."""
        total = 0
        for replica in state.replicas:
            if not holds_gpus(replica) and Rung.WARM in (replica.rung, replica.target):
                total += self._models[replica.model_id].weights_bytes
        return total

    def _settle(self, holding: _Holding, now_us: int) -> None:
        passed_us = now_us - holding.since_us
        self.run.gpu_us_serving += holding.gpus_serving * passed_us
        self.run.hbm_idle_byte_us += holding.idle_bytes * passed_us
        holding.since_us = now_us

    def returned(self, node_id: str, now_us: int) -> None:
        """A node is gone or given back: it costs no more."""
        holding = self._holdings.pop(node_id)
        self._settle(holding, now_us)
        self.run.gpu_us_paid += holding.gpus * (now_us - holding.paid_since_us)

    # --- the whole

    def look(self, snapshot: ClusterSnapshot, held: int, in_flight: int, now_us: int) -> None:
        """One point of the timeline."""
        rungs = [0] * len(self.run.models)
        for node in snapshot.nodes:
            for replica in node.replicas:
                i = self.index[replica.model_id]
                rungs[i] = max(rungs[i], replica.rung)
        holdings = self._holdings.values()
        moment = Moment(
            at_us=now_us,
            gpus_there=sum(len(node.gpus) for node in snapshot.nodes),
            gpus_serving=sum(h.gpus_serving for h in holdings),
            hbm_idle_bytes=sum(h.idle_bytes for h in holdings),
            held=held,
            in_flight=in_flight,
            rungs=tuple(rungs),
        )
        self.run.timeline.append(moment)

    def close(self, now_us: int) -> Run:
        """The run is over: what still costs has cost until now."""
        for node_id in list(self._holdings):
            self.returned(node_id, now_us)
        run = self.run
        assert OPEN not in run.ending, "a request has not ended"
        run.ended_us = now_us
        for column in (run.model, run.arrived_us, run.ttft_us, run.itl_us, run.ending, run.cold):
            self._deeds.update(column)
        totals = (run.tokens_in, run.tokens_out, run.gpu_us_paid, run.gpu_us_serving, now_us)
        self._deeds.update(repr(totals).encode())
        run.digest = self._deeds.hexdigest()
        return run
