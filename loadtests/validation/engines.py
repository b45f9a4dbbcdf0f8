"""Engines of published measurements, and how long our edges and batches take for their deeds.

In: what a publication says of its model and GPU; what it leaves out is taken as vLLM's default.
Out: seconds of starts, sleeps, wakes and answers. Never: a number of its own beside these.
"""

from placement import constants as c
from placement.catalog import EngineKind, ModelId, ModelSpec
from placement.edges import DEFAULT_LINKS, Edge, start_edge, step_edge
from placement.engines.emulated_batch import Batch, Sequence
from placement.engines.emulated_links import Movers
from placement.service_time import kv_tokens, timing_of
from placement.snapshot import Rung, WeightsAt

GB = 1_000_000_000
US = 1_000_000


def engine(
    name: str,
    weights_gb: float,
    layers: int,
    hbm_gb: float,
    *,
    gpus: int = 1,
    parameters: float = 0,
    kv_bytes_per_token: int = 131_072,
    max_num_seqs: int = 256,
) -> ModelSpec:
    """With the KV cache that vLLM's default share of the GPU leaves."""
    weights = int(weights_gb * GB)
    usable = c.USABLE_HBM.value * hbm_gb * GB
    kv_cache = max(int(usable - weights / gpus - c.ACTIVATIONS_BYTES.value), GB)
    return ModelSpec(
        id=ModelId(name),
        engine=EngineKind.EMULATED,
        weights_bytes=weights,
        parameters=int(parameters),
        layers=layers,
        gpus=gpus,
        kv_bytes_per_token=kv_bytes_per_token,
        kv_cache_bytes=kv_cache,
        max_num_seqs=max_num_seqs,
        max_model_len=1_000_000,
    )


# Sizes are those of the published checkpoints (grade M): bytes of weights, decoder layers.
QWEN3_0_6B = engine("Qwen3-0.6B, A100", 1.5, 28, 80, kv_bytes_per_token=114_688)
PHI3_VISION = engine("Phi-3-vision-128k, A100", 8.3, 32, 80, kv_bytes_per_token=393_216)
QWEN3_30B = engine("Qwen3-Coder-30B-A3B, A100", 61, 48, 80, kv_bytes_per_token=98_304)
QWEN3_235B = engine(
    "Qwen3-235B-A22B-FP8, TP4, A100", 236, 94, 80, gpus=4, kv_bytes_per_token=192_512
)
LLAMA_3B = engine("Llama-3.2-3B", 6.4, 28, 80, kv_bytes_per_token=114_688)
FMA_64_GIB = engine("64 GiB of tensors", 68.7, 64, 80)
A4000_QWEN3_0_6B = engine("Qwen3-0.6B, A4000", 1.5, 28, 16, kv_bytes_per_token=114_688)
A4000_SMOLVLM2 = engine("SmolVLM2-2.2B, A4000", 4.5, 24, 16, kv_bytes_per_token=196_608)
A4000_PHI3_VISION = engine("Phi-3-vision-128k, A4000", 8.3, 32, 16, kv_bytes_per_token=393_216)
L40_GPT_OSS = engine("gpt-oss-20b, L40", 13.8, 24, 48, parameters=3.6e9, kv_bytes_per_token=49_152)
L40_GEMMA = engine("gemma-3-12b, L40", 24.4, 48, 48, parameters=12.2e9, kv_bytes_per_token=393_216)
L40_QWEN3_4B = engine("Qwen3-4B, L40", 8.0, 36, 48, kv_bytes_per_token=147_456)
LLAMA_8B = engine("Llama-3.1-8B", 16.1, 32, 80, parameters=8.03e9)
LLAMA3_70B = engine(
    "Llama-3.1-70B, TP4", 141, 80, 80, gpus=4, parameters=70.6e9, kv_bytes_per_token=327_680
)


def llama2_70b(gpus: int) -> ModelSpec:
    return engine(
        f"Llama-2-70B, TP{gpus}",
        137.96,
        80,
        80,
        gpus=gpus,
        parameters=69e9,
        kv_bytes_per_token=327_680,
    )


def took_us(edge: Edge) -> int:
    """On an otherwise idle node, by the simulator's own book of links."""
    movers = Movers(DEFAULT_LINKS)
    movers.begin("it", edge, 0)
    while (next_us := movers.next_us()) is not None:
        for ended in movers.advance(next_us):
            return ended.at_us
    raise AssertionError("an edge that begins also ends")


def start_s(spec: ModelSpec) -> float:
    """A fresh engine, weights in the page cache."""
    return took_us(start_edge(spec, WeightsAt.HOST)) / US


def sleep_s(spec: ModelSpec, to: Rung = Rung.PARKED) -> float:
    return took_us(step_edge(spec, Rung.SERVING, to)) / US


def wake_s(spec: ModelSpec, at: Rung = Rung.PARKED) -> float:
    return took_us(step_edge(spec, at, Rung.SERVING)) / US


def answer_s(spec: ModelSpec, gpu_type: str, prompt_tokens: int, output_tokens: int) -> float:
    """One request on an otherwise idle replica, first to last."""
    batch = Batch(timing_of(spec, gpu_type), kv_tokens(spec), spec.max_num_seqs)
    batch.add(Sequence(1, prompt_tokens, output_tokens, 0))
    ends = 0
    while (next_us := batch.next_us()) is not None:
        ends = batch.milestones(next_us)[-1].at_us
    return ends / US


def step_ms(spec: ModelSpec, gpu_type: str, sequences: int, context_tokens: int) -> float:
    """One decode step of sequences that hold `context_tokens` each."""
    timing = timing_of(spec, gpu_type)
    return timing.step_us(sequences, sequences * context_tokens) / 1000
