"""Prefill, decoding and throughput of engines: published figures beside the roofline's.

In: published measurements. Out: `Figure`s. Never: a constant of its own.
"""

from collections.abc import Iterator
from statistics import median

from loadtests.draws import Lognormal, stream
from loadtests.validation import engines as e
from loadtests.validation.figures import Figure
from placement.catalog import ModelSpec
from placement.engines.emulated_batch import Batch, Sequence
from placement.service_time import kv_tokens, timing_of

SPLITWISE = "splitwise-sim data/perf_model.csv, medians, Llama-2-70B, engine of 2023"
BLOG = "vLLM blog 2025-10-26, sleep mode: A100, vLLM 0.11.0"
LAMBDA = "LambdaLabsML/vllm-benchmark benchmark_v0.md: vLLM 0.6.0, ten scheduler steps"
MUSGRAVE = "johnmusgrave.com: Llama-3.1-8B, A100-40GB, vLLM 0.23, 1024 tokens in, 128 out"
YOBITEL = "yobitelcomm bench: Llama-3.1-8B, H100, vLLM 0.21.0"

STEP_FLOOR = (
    "The engine of 2023 takes 30 ms (H100) or 45 ms (A100) a step however few weights a GPU reads; "
    "our overhead of 7.5 to 10 ms is that of a current one."
)
ONE_SHARE = (
    "Two GPUs reach 0.60 (A100) and 0.45 (H100) of their peak there, eight of them 0.37 and 0.23; "
    "we have one share for a GPU type, whatever their number."
)
ACTIVE_EXPERTS = (
    "Our decode step reads all weights. A mixture of experts reads the active ones while the batch "
    "is small, so ours is too slow by their share."
)
FAST_STEP = (
    "Our 3 ms of overhead a step were set by an 8B model on an A100; this engine on an H100 has "
    "next to none left."
)
UNCHUNKED = (
    "That run had no chunked prefill and ten steps a schedule: a new prompt stops all decoding, "
    "and a sequence that ends leaves its slot idle until the tenth step. The GPU is not named."
)

_CONTEXT = "Context of a sequence in a decode step: 1024 tokens, where the file tells none."

# GPUs, prompt ms at 1024 tokens, decode ms at batch 1 and 32.
_SPLITWISE_ROWS = (
    ("A100-80GB", 2, 377, 54.9, 72.2),
    ("A100-80GB", 4, 227, 45.0, 52.4),
    ("A100-80GB", 8, 155, 44.9, 53.0),
    ("H100-80GB", 2, 158, 37.0, 52.3),
    ("H100-80GB", 4, 106, 29.7, 36.9),
    ("H100-80GB", 8, 78, 29.8, 38.6),
)


def splitwise_figures() -> Iterator[Figure]:
    """A100's share of the peak in a prefill was set by these rows; H100's and decoding were not."""
    for gpu_type, gpus, prompt_ms, alone_ms, batch_ms in _SPLITWISE_ROWS:
        spec = e.llama2_70b(gpus)
        timing = timing_of(spec, gpu_type)
        where = f"{spec.id}, {gpu_type.removesuffix('-80GB')}"
        yield Figure(
            name=f"prompt of 1024 tokens, {where}",
            unit="ms",
            published=prompt_ms,
            ours=timing.prefill_us(1024) / 1000,
            source=SPLITWISE,
            grade="B",
            fitted="GPU_TYPES" if gpu_type == "A100-80GB" else "",
            miss=ONE_SHARE,
        )
        for sequences, published in ((1, alone_ms), (32, batch_ms)):
            yield Figure(
                name=f"decode step of {sequences}, {where}",
                unit="ms",
                published=published,
                ours=e.step_ms(spec, gpu_type, sequences, 1024),
                source=SPLITWISE,
                grade="B",
                assumed=_CONTEXT,
                miss=STEP_FLOOR,
            )


def answer_figures() -> Iterator[Figure]:
    """Single answers of 100 tokens on an A100, and single steps."""
    assumed = "A question of 32 tokens, answered with all of the 100 tokens that it was cut to."
    for spec, published, miss in (
        (e.QWEN3_0_6B, 0.43, ""),
        (e.PHI3_VISION, 0.76, ""),
        (e.QWEN3_30B, 0.82, ACTIVE_EXPERTS),
        (e.QWEN3_235B, 1.47, ACTIVE_EXPERTS),
    ):
        yield Figure(
            name=f"answer of a woken {spec.id}",
            unit="s",
            published=published,
            ours=e.answer_s(spec, "A100-80GB", 32, 100),
            source=BLOG,
            grade="B",
            assumed=assumed,
            miss=miss,
        )
    yield Figure(
        name="decode step of 1, Llama-3.1-8B, H100",
        unit="ms",
        published=6.48,
        ours=e.step_ms(e.LLAMA_8B, "H100-80GB", 1, 200),
        source=YOBITEL,
        grade="B",
        miss=FAST_STEP,
    )


def saturated(
    spec: ModelSpec, gpu_type: str, lengths: list[tuple[int, int]], at_once: int
) -> tuple[float, float]:
    """Output tokens per second and median time per output token in ms, `at_once` in flight."""
    batch = Batch(timing_of(spec, gpu_type), kv_tokens(spec), at_once)
    sequences = [Sequence(i, p, o, 0) for i, (p, o) in enumerate(lengths)]
    for sequence in sequences:
        batch.add(sequence)
    first_us, gaps_ms, now_us = {}, [], 0
    while (next_us := batch.next_us()) is not None:
        for told in batch.milestones(next_us):
            now_us = told.at_us
            if told.first:
                first_us[told.seq_id] = told.at_us
            if told.finished and (gaps := sequences[told.seq_id].done_tokens - 1):
                gaps_ms.append((told.at_us - first_us[told.seq_id]) / gaps / 1000)
    return sum(o for _, o in lengths) / now_us * 1_000_000, median(gaps_ms)


def throughput_figures() -> Iterator[Figure]:
    alone, _ = saturated(e.LLAMA_8B, "A100-80GB", [(1024, 128)] * 20, 1)
    eight, _ = saturated(e.LLAMA_8B, "A100-80GB", [(1024, 128)] * 160, 8)
    yield Figure(
        name="output of eight at once beside one, Llama-3.1-8B, A100",
        unit="times",
        published=6.6,
        ours=eight / alone,
        source=MUSGRAVE,
        grade="B",
        assumed="The 80 GB type; the ratio of two runs hardly depends on the bandwidth.",
    )
    for spec, tokens_per_s, step_ms in ((e.LLAMA_8B, 8088, 25.57), (e.LLAMA3_70B, 3543, 61.1)):
        ours_per_s, ours_ms = saturated(spec, "H100-80GB", sharegpt(2000), 256)
        for unit, published, ours in (
            ("tok/s", tokens_per_s, ours_per_s),
            ("ms a token", step_ms, ours_ms),
        ):
            yield Figure(
                name=f"256 at once, {spec.id}",
                unit=unit,
                published=published,
                ours=ours,
                source=LAMBDA,
                grade="B",
                assumed="H100 (its report calls the A100 half as fast); ShareGPT lengths drawn "
                "with the means of another of its runs, 230 tokens in and 225 out.",
                miss=UNCHUNKED,
            )


def sharegpt(count: int) -> list[tuple[int, int]]:
    """Prompt and output tokens of as many requests; lognormal, cut as its script cuts them."""
    rng = stream(0, "validation/sharegpt")
    prompts = Lognormal(260.0, 1.2, 1024).draw(rng, count)
    outputs = Lognormal(240.0, 1.1, 1024).draw(rng, count)
    return [(int(p), int(o)) for p, o in zip(prompts, outputs, strict=True)]
