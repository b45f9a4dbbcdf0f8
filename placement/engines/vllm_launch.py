"""How a vLLM server is started: its arguments and its environment, from the catalog alone.

In: the replica, its ports, the folders it may use, the environment it inherits. Out: an argument
list and an environment. Never: starts anything, looks at the machine.

Every value is joined to its flag by `=`, so that no name or path of the catalog is read as a flag.
"""

from collections.abc import Mapping

from placement.catalog import Frozen, ModelSpec
from placement.edges import footprint_bytes

MODULE = "vllm.entrypoints.openai.api_server"
"""`vllm serve` is the newer way in, but looks up a distribution of the name `vllm`, which builds
for the CPU do not have."""

GUARD = "warmtide_guard.Guard"

_LORA_RANK_DEFAULT = "--max-lora-rank=64"

# Of the environment that an agent inherits, nothing may lead an engine astray.
_DROPPED = (
    "VLLM_API_KEY",  # the gateway sends none: our guard stands there
    "VLLM_CPU_KVCACHE_SPACE",  # whole GiB, and it would win over --kv-cache-memory-bytes
    "VLLM_HOST_IP",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""With `expandable_segments` in them a sleep frees nothing."""


class Ports(Frozen, frozen=True, kw_only=True):
    """The server's own port, and the first of those that its processes use among themselves."""

    api: int
    inner: int


class Ground(Frozen, frozen=True, kw_only=True):
    """What a node gives every engine that it starts."""

    hbm_bytes: int
    cache: str
    """Compiled code, shared by all engines and kept from run to run."""
    guard: str
    token_file: str


def arguments(spec: ModelSpec, ports: Ports, ground: Ground) -> list[str]:
    """What follows the interpreter. The catalog's own arguments come last."""
    found = [
        *("-m", MODULE),
        f"--model={spec.source}",
        f"--served-model-name={spec.id}",
        "--host=127.0.0.1",
        f"--port={ports.api}",
        f"--middleware={GUARD}",
        "--disable-uvicorn-access-log",
        f"--max-model-len={spec.max_model_len}",
        f"--max-num-seqs={spec.max_num_seqs}",
        f"--tensor-parallel-size={spec.gpus}",
        f"--kv-cache-memory-bytes={spec.kv_cache_bytes}",
    ]
    if not spec.on_cpu:
        found += [f"--gpu-memory-utilization={utilisation(spec, ground)}", "--enable-sleep-mode"]
    if spec.adapters:
        found += ["--enable-lora", f"--max-loras={len(spec.adapters)}", _LORA_RANK_DEFAULT]
    return [*found, *spec.engine_args]


def utilisation(spec: ModelSpec, ground: Ground) -> str:
    """The share of the GPU that must be free at a start. With a fixed KV cache vLLM uses it for
    this check alone, so it is rounded down: neighbours that fit are never refused for a rounding.
    """
    thousandths = 1000 * footprint_bytes(spec) // ground.hbm_bytes
    return f"{min(max(thousandths, 1), 999) / 1000:.3f}"


def environment(
    inherited: Mapping[str, str],
    spec: ModelSpec,
    gpu_ids: tuple[int, ...],
    ports: Ports,
    ground: Ground,
) -> dict[str, str]:
    """The inherited environment without traps, and what every engine needs."""
    found = {k: v for k, v in inherited.items() if k not in _DROPPED}
    for name in _ALLOCATOR:
        if "expandable_segments" in found.get(name, ""):
            del found[name]
    behind = f":{inherited['PYTHONPATH']}" if inherited.get("PYTHONPATH") else ""
    found |= {
        "PYTHONPATH": ground.guard + behind,
        "PYTHONSAFEPATH": "1",  # `-m` would look for modules in the working directory first
        "WARMTIDE_TOKEN_FILE": ground.token_file,
        "VLLM_PORT": str(ports.inner),
        "VLLM_CACHE_ROOT": ground.cache,
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    if spec.adapters:
        found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if spec.on_cpu:
        # Left to itself, each engine of a machine pins its threads to the same first cores.
        return {"VLLM_CPU_OMP_THREADS_BIND": "nobind"} | found
    return found | {
        # CUDA counts by speed unless told otherwise, NVML and everybody else by slot.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(devices(inherited, gpu_ids)),
    }


def devices(inherited: Mapping[str, str], gpu_ids: tuple[int, ...]) -> list[str]:
    """What the driver calls these GPUs: an agent that sees only some counts from its own first."""
    visible = [name for name in inherited.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if not visible:
        return [str(g) for g in gpu_ids]
    return [visible[g] if g < len(visible) else str(g) for g in gpu_ids]
