"""Small worlds for tests, in the words of the domain."""

from typing import Any

from placement.catalog import Catalog, EngineKind, ModelId, ModelSpec, NodeId, NodeSpec
from placement.edges import DEFAULT_LINKS

GB = 1_000_000_000
GIB = 2**30


def model(model_id: str = "small", **changes: Any) -> ModelSpec:
    """An emulated 8B-class model unless told otherwise."""
    defaults: dict[str, Any] = {
        "engine": EngineKind.EMULATED,
        "weights_bytes": 16 * GB,
        "parameters": 8_000_000_000,
        "layers": 32,
        "kv_bytes_per_token": 131_072,
        "kv_cache_bytes": 20 * GB,
        "residue_bytes": 1 * GB,
    }
    return ModelSpec(id=ModelId(model_id), **{**defaults, **changes})


def node(node_id: str = "n0", **changes: Any) -> NodeSpec:
    """Two GPUs of 80 GB unless told otherwise."""
    defaults: dict[str, Any] = {
        "gpus": 2,
        "gpu_type": "H100-80GB",
        "hbm_bytes": 80 * GB,
        "host_bytes": 256 * GB,
        "links": DEFAULT_LINKS,
    }
    return NodeSpec(id=NodeId(node_id), **{**defaults, **changes})


def catalog(*models: ModelSpec, nodes: tuple[NodeSpec, ...] = (), **changes: Any) -> Catalog:
    return Catalog(version="test", models=models, nodes=nodes or (node(),), **changes)
