"""Scenarios as tests write them: a small text, and a trace of a few bins."""

import tomllib
from dataclasses import replace

import numpy as np

from loadtests.scenarios.demand import LengthTable, Traced
from loadtests.scenarios.shape import ScenarioFile, parse_scenario
from prewarm.traces.records import HOUR_US, Counts, Ints

SMALL = """
question = "does a test see what it should?"
nodes = [{id = "n", count = 2, gpus = 8, gpu = "A100-80GB", host_memory = "1 TB"}]
slo = {ttft = "500 ms", itl = "50 ms"}
demand = {source = "servegen m-large", shares = "zipf"}
slice = {day = 3, hour = 2, duration = "1 h", past_days = 2}
cell = {rps = 6.0, alpha = 1.0, cv = "original", hour = "busiest"}
models = [{id = "a", shape = "s"}, {id = "b", shape = "s"}, {id = "c", shape = "s"}]
[shapes.s]
weights = "16 GB"
kv_cache = "10 GB"
max_model_len = 2048
"""


def scenario(*swaps: tuple[str, str]) -> ScenarioFile:
    """The small scenario, with parts of its text exchanged."""
    text = SMALL
    for old, new in swaps:
        assert old in text, f"{old!r} is not in the scenario's text"
        text = text.replace(old, new)
    return parse_scenario(tomllib.loads(text), "small.toml")


def traced(counts: Ints, width_us: int = HOUR_US // 6) -> Traced:
    """A trace of these counts, whose requests are all 100 tokens in, 10 out."""
    found = Counts(
        start_us=0,
        width_us=width_us,
        streams=tuple(f"c{i}" for i in range(counts.shape[1])),
        counts=counts,
        holes=np.zeros(counts.shape, np.bool_),
    )
    lengths = LengthTable(prompt_tokens=np.full(5, 100), output_tokens=np.full(5, 10))
    return Traced(
        counts=found,
        told="a test's",
        holes=0,
        lengths=lengths,
        lengths_told="a test's",
        digest="",
    )


def busy_days(days: int = 3, streams: int = 3) -> Traced:
    """Stream k asks 60 - 10k times a bin, ten times that in hour 5, a tenth in hour 9."""
    counts = np.repeat([[60 - 10 * k for k in range(streams)]], days * 144, axis=0)
    for day in range(days):
        counts[day * 144 + 30 : day * 144 + 36] *= 10
        counts[day * 144 + 54 : day * 144 + 60] //= 10
    return traced(counts)


def with_lengths(found: Traced, prompt: list[int], output: list[int]) -> Traced:
    table = LengthTable(prompt_tokens=np.array(prompt), output_tokens=np.array(output))
    return replace(found, lengths=table)
