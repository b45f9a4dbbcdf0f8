"""The instances that policy and gateway share. Mutated by both; decides nothing. Pure.

In: creations, requests that come and go. Out: `Instance` records by model, in order of creation.
"""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Instance:
    """A serving replica from the moment at which somebody wanted it, long before it is ready."""

    replica_id: str
    model_id: str
    node_id: str
    gpu_ids: tuple[int, ...]
    created_us: int
    in_flight: int = 0
    """Requests given to it, those included that wait until it is ready."""
    ready: bool = False
    draining: bool = False


class Instances:
    """All of them, by replica id and by model."""

    def __init__(self) -> None:
        self.by_id: dict[str, Instance] = {}
        self._by_model: dict[str, list[Instance]] = {}

    def add(self, instance: Instance) -> None:
        assert instance.replica_id not in self.by_id, f"{instance.replica_id} is registered twice"
        self.by_id[instance.replica_id] = instance
        self._by_model.setdefault(instance.model_id, []).append(instance)

    def remove(self, instance: Instance) -> None:
        del self.by_id[instance.replica_id]
        self._by_model[instance.model_id].remove(instance)

    def of(self, model_id: str) -> list[Instance]:
        """Registered and not draining: what the formulas call c."""
        return [i for i in self._by_model.get(model_id, ()) if not i.draining]
