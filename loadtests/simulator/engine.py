"""One replica's engine in a simulation: who waits for it, its batch, and what its climb was worth.

In: requests, the moments at which it begins and ceases to serve. Out: first tokens and ends, told
to whoever listens. Never: moves between rungs (nodes do), picks requests. It is the hot path.
"""

from typing import Protocol

from loadtests.simulator.agenda import Act, Agenda
from loadtests.simulator.port import SimRequest
from placement.catalog import ModelSpec
from placement.engines.emulated_batch import Progress, Sequence, batch_of
from placement.service_time import longest_tokens


class Listener(Protocol):
    """Who hears of requests."""

    def on_first_use(self, engine: "Engine", request: SimRequest) -> None:
        """The first token of the first request since it last climbed to serving."""

    def on_answered(self, engine: "Engine", request: SimRequest) -> None: ...


class Engine:
    """A batch that lives as long as its replica, on every rung. `requests` also holds who waits."""

    __slots__ = (
        "agenda", "batch", "climb_began_us", "climb_bytes", "due_us", "fire", "hear", "longest",
        "on_end", "replica_id", "requests", "serving", "spec", "unused",
    )  # fmt: skip

    def __init__(
        self, replica_id: str, spec: ModelSpec, gpu_type: str, agenda: Agenda, hear: Listener
    ) -> None:
        self.replica_id = replica_id
        self.spec = spec
        self.agenda = agenda
        self.hear = hear
        self.batch = batch_of(spec, gpu_type)
        self.longest = longest_tokens(spec)
        self.requests: dict[int, SimRequest] = {}
        self.serving = False
        self.due_us = -1
        """When its one live entry of the agenda falls; others find that they are void."""
        self.fire = self._fire
        self.on_end: Act | None = None
        """Called after each answer, while somebody waits for what it frees."""
        self.unused = False
        """No request has been served since its weights were last brought, or kept, on the GPU."""
        self.climb_began_us = 0
        self.climb_bytes = 0
        """Weights that the climb has brought to GPUs, while nobody has used them."""

    @property
    def busy(self) -> bool:
        return bool(self.requests)

    def take(self, request: SimRequest) -> None:
        """One that does not serve yet lets it wait."""
        self.requests[request.index] = request
        if self.serving:
            now_us = self.agenda.now_us
            self._tell(now_us)
            self._add(request, now_us)
            self._arm(self.batch.next_us())

    def begin_serving(self) -> None:
        self.serving = True
        now_us = self.agenda.now_us
        self._tell(now_us)
        for request in list(self.requests.values()):
            self._add(request, now_us)
        self._arm(self.batch.next_us())

    def cease_serving(self) -> None:
        assert not self.requests, f"{self.replica_id} stopped serving with requests on it"
        self.serving = False

    def give_up(self, request: SimRequest) -> None:
        """Its deadline has passed: whatever it holds here is free at once, and nothing that it
        gains in this moment is told."""
        del self.requests[request.index]
        if self.serving:
            told = self.batch.milestones(self.agenda.now_us)
            self.batch.cancel(request.index)
            self._tell_of([one for one in told if one.seq_id != request.index])
            self._arm(self.batch.next_us())

    def lose(self) -> list[SimRequest]:
        """The engine is gone, and these were on it."""
        lost = list(self.requests.values())
        self.requests.clear()
        self.serving = False
        self.due_us = -1
        return lost

    def _add(self, request: SimRequest, now_us: int) -> None:
        room = self.longest - request.prompt_tokens
        request.output_tokens = min(request.output_tokens, room)
        self.batch.add(
            Sequence(request.index, request.prompt_tokens, request.output_tokens, now_us)
        )

    def _arm(self, next_us: int | None) -> None:
        # An entry that falls too early merely arms the next one: cheaper than to replace it.
        if next_us is not None and (next_us < self.due_us or self.due_us < 0):
            self.due_us = next_us
            self.agenda.at(next_us, self.fire)

    def _fire(self) -> None:
        if self.due_us == self.agenda.now_us:
            self.due_us = -1
            self._tell(self.agenda.now_us)
            self._arm(self.batch.next_us())

    def _tell(self, now_us: int) -> None:
        """First tokens and ends until now."""
        self._tell_of(self.batch.milestones(now_us))

    def _tell_of(self, told: list[Progress]) -> None:
        for seq_id, _, at_us, first, finished in told:
            if first:
                request = self.requests[seq_id]
                request.first_us = at_us
                if self.unused:
                    self.hear.on_first_use(self, request)
            if finished:
                self.hear.on_answered(self, self.requests.pop(seq_id))
                if self.on_end is not None:
                    self.on_end()
