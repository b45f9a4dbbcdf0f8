"""A catalog as tables for people and as a document for scripts. An edge: it draws with rich.

In: a catalog. Out: tables, records of JSON. Never: prints.
"""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from placement.catalog import Catalog, ModelSpec, NodeSpec
from placement.catalog_units import human_bytes, human_time
from placement.edges import climb_us, footprint_bytes, host_bytes
from placement.snapshot import Rung, WeightsAt


def summary(catalog: Catalog) -> dict[str, Any]:
    """What a script may want to know of a good catalog."""
    return {
        "version": catalog.version,
        "time_scale": catalog.time_scale,
        "models": [_model_row(spec) for spec in catalog.models],
        "nodes": [
            {
                "id": node.id,
                "gpus": node.gpus,
                "gpu": node.gpu_type,
                "hbm_bytes": node.hbm_bytes,
                "host_bytes": node.host_bytes,
            }
            for node in catalog.nodes
        ],
        "tenants": [tenant.id for tenant in catalog.tenants],
    }


def _model_row(spec: ModelSpec) -> dict[str, Any]:
    on_gpu = spec.on_gpu
    return {
        "id": spec.id,
        "engine": spec.engine.value,
        "names": [*spec.aliases, *(adapter.id for adapter in spec.adapters)],
        "tasks": [task.value for task in spec.tasks],
        "gpus": spec.gpus if on_gpu else 0,
        "footprint_bytes": footprint_bytes(spec) if on_gpu else 0,
        "parked_host_bytes": host_bytes(spec, Rung.PARKED) if on_gpu else 0,
        "cold_start_us": climb_us(spec, WeightsAt.HOST) if on_gpu else 0,
        "promotion_us": climb_us(spec, Rung.PARKED) if on_gpu else 0,
    }


def models_table(catalog: Catalog) -> Table:
    """Aliases and adapters stand indented under the model that serves them."""
    table = Table(title="Models", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("id", "engine"):
        table.add_column(heading, no_wrap=True)
    for heading in ("GPUs", "on each", "cold start", "from parked"):
        table.add_column(heading, justify="right", no_wrap=True)
    for spec in catalog.models:
        row = _model_row(spec)
        cells = ["-"] * 4
        if spec.on_gpu:
            cells = [
                str(spec.gpus),
                human_bytes(row["footprint_bytes"]),
                human_time(round(row["cold_start_us"], -5)),
                human_time(round(row["promotion_us"], -4)),
            ]
        names = "\n".join([spec.id, *(f"  {name}" for name in row["names"])])
        table.add_row(names, spec.engine.value, *cells)
    return table


def nodes_table(catalog: Catalog) -> Table:
    table = Table(title="Nodes", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("id", "GPUs", "each", "host memory", "weights at start"):
        table.add_column(heading)
    for node in catalog.nodes:
        table.add_row(node.id, *_node_cells(node))
    return table


def _node_cells(node: NodeSpec) -> tuple[str, str, str, str]:
    each = human_bytes(node.hbm_bytes) if node.gpus else "-"
    gpus = f"{node.gpus} × {node.gpu_type}" if node.gpus else "none"
    return gpus, each, human_bytes(node.host_bytes), "host" if node.preloaded else "disk"
