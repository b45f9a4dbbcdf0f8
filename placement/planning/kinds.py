"""Nodes that differ by their names alone, told apart from others. Pure.

In: nodes and their specs. Out: kinds, and where a model's weights lie on the nodes of each. Never:
changes with what stands on a node.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from placement.catalog import ModelId, ModelSpec, NodeId, NodeSpec
from placement.snapshot import NodeState, WeightsAt


class Kind(NamedTuple):
    spec: NodeSpec
    """Without a name."""
    hbm_bytes: int
    """Of a GPU, as the nodes themselves tell it."""


class Kinds:
    """Of the nodes of one round."""

    def __init__(
        self, nodes: Mapping[str, NodeState], spec_of: Callable[[NodeState], NodeSpec]
    ) -> None:
        self._nodes = nodes
        self._of: dict[str, Kind] = {}
        self.names: dict[Kind, list[str]] = {}
        """In order."""
        for name, node in sorted(nodes.items()):
            spec = msgspec.structs.replace(spec_of(node), id=NodeId(""))
            kind = Kind(spec, node.gpus[0].hbm_bytes if node.gpus else 0)
            self._of[name] = kind
            self.names.setdefault(kind, []).append(name)
        self._telling = {kind: self._that_tell(names) for kind, names in self.names.items()}
        self._weights: dict[str, list[tuple[Kind, WeightsAt]]] = {}

    def _that_tell(self, names: list[str]) -> list[str]:
        """Nodes that say where weights lie, and one of those that say nothing."""
        telling = [name for name in names if self._nodes[name].weights_at]
        silent = next((name for name in names if not self._nodes[name].weights_at), None)
        return telling if silent is None else [*telling, silent]

    def of(self, node_id: str) -> Kind:
        return self._of[node_id]

    def weights(self, spec: ModelSpec) -> list[tuple[Kind, WeightsAt]]:
        """Where those of a model lie, somewhere on a node of the kind."""
        known = self._weights.get(spec.id)
        if known is None:
            known = self._weights[spec.id] = [
                (kind, at)
                for kind, names in self.names.items()
                for at in sorted(
                    {weights_at(self._nodes[name], spec) for name in self._telling[kind]}
                )
            ]
        return known


def weights_at(node: NodeState, spec: ModelSpec) -> WeightsAt:
    return node.weights_at.get(ModelId(spec.id), WeightsAt.HOST)
