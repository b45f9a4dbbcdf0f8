"""vLLM's surroundings for tests that start none: a driver, and files of an engine that it began."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from placement.catalog import EngineKind, ModelSpec
from placement.engines.base import IDENTITY, identity_of, write_json
from placement.engines.vllm_driver import Begun, Measure, VllmDriver
from placement.engines.vllm_launch import Ports
from tests.builders import GB, model, node

TOKEN = "only-for-tests"


def vllm(model_id: str = "tiny", **changes: Any) -> ModelSpec:
    """A real model of 8B class unless told otherwise."""
    return model(model_id, **{"engine": EngineKind.VLLM, "source": "org/tiny", **changes})


def nothing() -> Mapping[str, int]:
    return {}


def driver(
    folder: Path,
    visible: str = "",
    measure: Measure = nothing,
    *,
    python: str = "",
    gpu_type: str = "H100-80GB",
) -> VllmDriver:
    folder.mkdir(parents=True, exist_ok=True)
    token_file = folder / "token"
    token_file.write_text(TOKEN)
    return VllmDriver(
        node(gpu_type=gpu_type, hbm_bytes=80 * GB),
        folder,
        str(token_file),
        python=python,
        inherited={**os.environ, "CUDA_VISIBLE_DEVICES": visible},
        measure=measure,
    )


def pretend(folder: Path, *, gpu_ids: tuple[int, ...]) -> None:
    """The files of an engine that was begun; the process in them is this one, which lives."""
    place = folder / "engines" / "r0"
    begun = Begun(replica_id="r0", ports=Ports(api=1, inner=2), gpu_ids=gpu_ids)
    write_json(place / "vllm.json", begun)
    write_json(place / f"engine{IDENTITY}", identity_of(os.getpid()))
