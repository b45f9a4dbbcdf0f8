"""Which replica serves a request: filter, score, pick.

In: snapshots of the fleet and requests that come and go. Out: a `Lane`, or none. State is the
in-flight count of each lane; nothing here awaits, reads a clock or talks to an engine.
"""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from placement.catalog import Catalog, ModelSpec
from placement.snapshot import ClusterSnapshot, Phase, ReplicaState, Rung, WeightsAt

WEIGHTS_RUNG = {WeightsAt.OBJECT: "cold", WeightsAt.DISK: "disk", WeightsAt.HOST: "host"}


class Lane:
    """A way to one serving replica, and how much of it is in use. Mutated on the hot path."""

    # `line_start` and `line_end` enclose a path in the request line and headers towards the engine.
    __slots__ = (
        "address", "climbed_from", "down_until_us", "external", "failures", "host", "in_flight",
        "lane_id", "line_end", "line_start", "open", "port", "served_here", "slots", "spec", "tls",
        "where",
    )  # fmt: skip

    def __init__(
        self,
        lane_id: str,
        spec: ModelSpec,
        host: str,
        port: int,
        climbed_from: str,
        *,
        tls: bool = False,
    ) -> None:
        self.lane_id = lane_id
        self.spec = spec
        self.host = host
        self.port = port
        self.tls = tls
        self.address = (host, port, tls)
        self.external = False
        self.where = lane_id.encode()
        self.served_here = b"x-warmtide-replica: %b\r\nx-warmtide-rung: " % self.where
        name = f"[{host}]" if ":" in host else host
        self.line_start = b"POST "
        self.line_end = (
            b" HTTP/1.1\r\nhost: %b:%d\r\ncontent-type: application/json\r\ncontent-length: "
            % (name.encode(), port)
        )
        self.slots = max(spec.max_num_seqs, 1)
        self.climbed_from = climbed_from
        self.in_flight = 0
        self.open = True
        self.failures = 0
        self.down_until_us = 0

    @property
    def url(self) -> str:
        """The engine's base URL, for whoever asks it something beside requests."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        prefix = self.line_start.removeprefix(b"POST ").decode()
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{prefix}"

    def ready(self, now_us: int) -> bool:
        return self.open and self.down_until_us <= now_us


def pick(lanes: Iterable[Lane], excluded: frozenset[str], now_us: int) -> Lane | None:
    """The least-loaded ready lane with a free slot that this request may use; id closes ties."""
    best: Lane | None = None
    best_load = 1.0
    for lane in lanes:
        load = lane.in_flight / lane.slots
        if load >= 1.0 or not lane.ready(now_us) or lane.lane_id in excluded:
            continue
        if best is None or (load, lane.lane_id) < (best_load, best.lane_id):
            best, best_load = lane, load
    return best


class RoutingTable:
    """Lanes per model, kept through every change: a lane that closes still counts its requests."""

    def __init__(self) -> None:
        self._lanes: dict[str, dict[str, Lane]] = {}
        self._rung_seen: dict[str, str] = {}
        self._fenced: set[str] = set()

    def lanes(self, model_id: str) -> Iterable[Lane]:
        return self._lanes.get(model_id, {}).values()

    def in_flight(self) -> dict[str, int]:
        """Requests running on each lane by its id: replica ids for managed models."""
        return {
            lane.lane_id: lane.in_flight
            for lanes in self._lanes.values()
            for lane in lanes.values()
        }

    def forget(self, model_id: str) -> None:
        """A model that left the catalog is over: nothing of it runs any more."""
        self._lanes.pop(model_id, None)

    def has_open(self, model_id: str) -> bool:
        return any(lane.open for lane in self.lanes(model_id))

    def fence(self, replica_ids: Iterable[str]) -> bool:
        """Close these lanes before their replicas step down. False, and nothing done, if one runs
        a request."""
        wanted = set(replica_ids)
        lanes = [x for by_id in self._lanes.values() for k, x in by_id.items() if k in wanted]
        if any(lane.in_flight for lane in lanes):
            return False
        for lane in lanes:
            lane.open = False
        self._fenced |= wanted
        return True

    def unfence(self, replica_ids: Iterable[str]) -> None:
        """Lift the fence; the next `update` opens whatever still serves."""
        self._fenced.difference_update(replica_ids)

    def update(self, snapshot: ClusterSnapshot, specs: Mapping[str, ModelSpec]) -> set[str]:
        """Open, move and close lanes as the snapshot says; returns models that gained one."""
        gained: set[str] = set()
        present: set[str] = set()
        for node in snapshot.nodes:
            for replica in node.replicas:
                present.add(replica.replica_id)
                fenced = replica.replica_id in self._fenced
                usable = node.alive and replica.serving and bool(replica.endpoint) and not fenced
                spec = specs.get(replica.model_id)
                if usable and spec is not None and self._open(replica, spec):
                    gained.add(replica.model_id)
                if not usable:
                    if fenced and replica.serving:
                        continue
                    self._close(replica.model_id, replica.replica_id)
                    self._remember(replica, node.weights_at.get(replica.model_id))
        self._drop_absent(present)
        return gained

    def update_external(self, catalog: Catalog) -> set[str]:
        """Lanes of engines that someone else runs: one per declared endpoint."""
        declared: set[str] = set()
        gained: set[str] = set()
        for spec in catalog.models:
            for url in spec.endpoints:
                lane_id = f"{spec.id}@{url}"
                declared.add(lane_id)
                if lane_id not in self._lanes.setdefault(spec.id, {}):
                    self._lanes[spec.id][lane_id] = _external_lane(lane_id, spec, url)
                    gained.add(spec.id)
                self._lanes[spec.id][lane_id].spec = spec
        for lanes in self._lanes.values():
            for lane_id in [k for k, x in lanes.items() if x.external and k not in declared]:
                lanes[lane_id].open = False
                if not lanes[lane_id].in_flight:
                    del lanes[lane_id]
        return gained

    def _open(self, replica: ReplicaState, spec: ModelSpec) -> bool:
        host, _, port = replica.endpoint.rpartition(":")
        lanes = self._lanes.setdefault(replica.model_id, {})
        lane = lanes.get(replica.replica_id)
        came_from = self._rung_seen.pop(replica.replica_id, None)
        if lane is not None and (lane.host, lane.port) == (host, int(port)):
            lane.spec = spec
            if lane.open:
                return False
            lane.open, lane.failures, lane.down_until_us = True, 0, 0
            lane.climbed_from = came_from or lane.climbed_from
            return True
        fresh = Lane(replica.replica_id, spec, host, int(port), came_from or "host")
        if replica.slots:
            fresh.slots = replica.slots
        lanes[replica.replica_id] = fresh
        return True

    def _close(self, model_id: str, lane_id: str) -> None:
        lane = self._lanes.get(model_id, {}).get(lane_id)
        if lane is not None:
            lane.open = False

    def _remember(self, replica: ReplicaState, weights_at: WeightsAt | None) -> None:
        """The rung a replica was last seen on below serving: what a held request climbed from."""
        if replica.phase is Phase.STARTING:
            rung = WEIGHTS_RUNG[WeightsAt.HOST if weights_at is None else weights_at]
            self._rung_seen.setdefault(replica.replica_id, rung)
        elif replica.rung is not Rung.SERVING:
            self._rung_seen[replica.replica_id] = replica.rung.name.lower()
        elif replica.phase is Phase.DRAINING:
            self._rung_seen[replica.replica_id] = "serving"

    def _drop_absent(self, present: set[str]) -> None:
        for lanes in self._lanes.values():
            for lane_id in [k for k, x in lanes.items() if not x.external and k not in present]:
                lanes.pop(lane_id).open = False
        for lane_id in [k for k in self._rung_seen if k not in present]:
            del self._rung_seen[lane_id]


def upstream_name(spec: ModelSpec, asked: str) -> str:
    """The name to ask an engine for: ours were started under their model's id, whatever aliases
    the catalog has by now; others' have a name of their own, or take the client's."""
    if not spec.upstream_model:
        return spec.id if asked in spec.aliases and spec.managed else asked
    adapters = {adapter.id for adapter in spec.adapters}
    return asked if asked in adapters else spec.upstream_model


def _external_lane(lane_id: str, spec: ModelSpec, url: str) -> Lane:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    lane = Lane(lane_id, spec, parts.hostname or "", port, "serving", tls=tls)
    lane.external = True
    lane.line_start += parts.path.rstrip("/").removesuffix("/v1").encode()
    return lane
