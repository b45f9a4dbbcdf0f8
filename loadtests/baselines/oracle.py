"""`oracle`: the bound of a relaxation in which every climb is free and instant. Pure.

In: a `Setup`. Out: a `Run`. Never: asks a policy, knows a replica.

GPUs may be repartitioned and requests repacked at any instant, so one thing alone is left to hold:
a request occupies its share of a full batch's footprint from its start to its end, and all shares
together never exceed the GPUs' usable bytes. Strictly first come, first served. Each runs at the
speed of a replica of its own. Nobody is refused: whoever waits starts late. More bytes then never
make anybody start later, by induction over the order of arrival: all before a request started no
later, so they end no later, and hold no more when its turn comes.
"""

import hashlib
import heapq
from array import array
from typing import NamedTuple

import numpy as np

from loadtests.simulator.port import LATE_US, Ending, Moment, Run, Setup
from placement.catalog import ModelSpec
from placement.edges import footprint_bytes
from placement.feasibility import usable_hbm_bytes
from placement.service_time import Timing, longest_tokens, timing_of
from placement.snapshot import Rung
from prewarm.traces.records import Ints, Requests

US = 1_000_000
PS_IN_US = 10**6
LOOK_US = 10 * US
LOOKS_MAX = 2_000


class Alone(NamedTuple):
    """Each request on an idle replica: to its first token, and to its last."""

    first_us: Ints
    total_us: Ints


def oracle(setup: Setup) -> Run:
    """All nodes that may ever exist are there all the time."""
    catalog = setup.catalog
    run = Run(models=tuple(spec.id for spec in catalog.models))
    bytes_all = sum(node.gpus * usable_hbm_bytes(node.hbm_bytes) for node in catalog.nodes)
    pool = _Pool(bytes_all)
    for chunk in setup.demand.chunks():
        _serve(run, pool, chunk, setup)
    return _closed(run, pool, setup)


def share_bytes(spec: ModelSpec) -> int:
    """What one of a full batch's requests occupies, over all GPUs of a replica."""
    return footprint_bytes(spec) * spec.gpus // spec.max_num_seqs


def alone(timing: Timing, prompt: Ints, output: Ints) -> Alone:
    """A prefill in one iteration, then steps that read a context growing by one token each."""
    prefill = timing.prefill_base_us + timing.prefill_token_ps * prompt // PS_IN_US
    first = np.maximum(prefill + timing.prefill_request_us, 1)
    steps = output - 1
    read = steps * (prompt + 1) + steps * (steps - 1) // 2
    rest = steps * timing.step_base_us + timing.step_context_token_ps * read // PS_IN_US
    return Alone(first, first + rest)


class _Pool:
    """Bytes, requests that hold some, and the moment up to which all is settled."""

    def __init__(self, bytes_all: int) -> None:
        self.bytes_all = bytes_all
        self.used = 0
        self.now_us = 0
        self.ends: list[tuple[int, int]] = []
        self.starts_us = array("q")
        self.ends_us = array("q")
        self.held = array("q")

    def start(self, arrived_us: int, total_us: int, need: int) -> int:
        """The earliest moment, not before anybody who came earlier, with room for it."""
        ends = self.ends
        now_us = max(arrived_us, self.now_us)
        while ends and (ends[0][0] <= now_us or self.used + need > self.bytes_all):
            end_us, given = heapq.heappop(ends)
            self.used -= given
            now_us = max(now_us, end_us)
        self.now_us = now_us
        self.used += need
        heapq.heappush(ends, (now_us + total_us, need))
        self.starts_us.append(now_us)
        self.ends_us.append(now_us + total_us)
        self.held.append(need)
        return now_us


def _serve(run: Run, pool: _Pool, chunk: Requests, setup: Setup) -> None:
    specs = setup.catalog.models
    index: dict[str, int] = {spec.id: i for i, spec in enumerate(specs)}
    model = np.array([index[name] for name in chunk.streams], np.int64)[chunk.stream]
    arrived = chunk.at_us + setup.warmup_us
    longest = np.array([longest_tokens(spec) for spec in specs], np.int64)[model]
    prompt = np.maximum(chunk.prompt_tokens, 1)
    output = np.minimum(np.maximum(chunk.output_tokens, 1), longest - prompt)
    speed = _speeds(setup, model, prompt, np.maximum(output, 1))
    need = [share_bytes(spec) for spec in specs]
    run.model.extend(model.tolist())
    run.arrived_us.extend(arrived.tolist())
    run.cold.extend([0] * len(chunk))
    rows = zip(
        model.tolist(),
        arrived.tolist(),
        prompt.tolist(),
        output.tolist(),
        speed.first_us.tolist(),
        speed.total_us.tolist(),
        strict=True,
    )
    for m, at_us, tokens_in, tokens_out, first_us, total_us in rows:
        if tokens_out <= 0 or need[m] > pool.bytes_all:  # fits no engine, as every world says
            _refuse(run)
            continue
        start_us = pool.start(at_us, total_us, need[m])
        run.held += start_us > at_us
        run.ttft_us.append(start_us + first_us - at_us)
        gaps = tokens_out - 1
        run.itl_us.append((total_us - first_us) // gaps if gaps else 0)
        run.ending.append(Ending.ANSWERED)
        run.tokens_in += tokens_in
        run.tokens_out += tokens_out


def _refuse(run: Run) -> None:
    run.ttft_us.append(LATE_US)
    run.itl_us.append(-1)
    run.ending.append(Ending.REFUSED)


def _speeds(setup: Setup, model: Ints, prompt: Ints, output: Ints) -> Alone:
    """On the GPU type that is quickest for it."""
    first = np.full(len(model), np.iinfo(np.int64).max)
    total = first.copy()
    for gpu_type in sorted({node.gpu_type for node in setup.catalog.nodes}):
        for m in np.unique(model).tolist():
            rows = np.flatnonzero(model == m)
            timing = timing_of(setup.catalog.models[m], gpu_type)
            here = alone(timing, prompt[rows], output[rows])
            first[rows] = np.minimum(first[rows], here.first_us)
            total[rows] = np.minimum(total[rows], here.total_us)
    return Alone(first, total)


def _closed(run: Run, pool: _Pool, setup: Setup) -> Run:
    """GPU time is what was occupied: in the relaxation nothing else need be paid for."""
    starts, ends, held = (
        np.frombuffer(column, np.int64) for column in (pool.starts_us, pool.ends_us, pool.held)
    )
    usable = max(usable_hbm_bytes(node.hbm_bytes) for node in setup.catalog.nodes)
    byte_s = float(np.dot(held.astype(np.float64), (ends - starts) / US)) if len(held) else 0.0
    run.gpu_us_serving = run.gpu_us_paid = round(byte_s / usable * US)
    last_end_us = int(ends.max()) if len(ends) else 0
    run.ended_us = max(last_end_us, setup.warmup_us + setup.demand.duration_us)
    run.timeline = _timeline(run, setup, starts, ends, held)
    digest = hashlib.sha256()
    for column in (run.model, run.arrived_us, run.ttft_us, run.itl_us, run.ending):
        digest.update(column)
    run.digest = digest.hexdigest()
    return run


def _timeline(run: Run, setup: Setup, starts: Ints, ends: Ints, held: Ints) -> list[Moment]:
    looks = np.arange(0, run.ended_us, max(LOOK_US, run.ended_us // LOOKS_MAX), dtype=np.int64)
    order = np.argsort(ends, kind="stable")
    arrived = np.frombuffer(run.arrived_us, np.int64)
    count_in = np.searchsorted(starts, looks, side="right")
    count_out = np.searchsorted(ends[order], looks, side="right")
    given = np.concatenate(([0], np.cumsum(held)))[count_in]
    returned = np.concatenate(([0], np.cumsum(held[order])))[count_out]
    usable = max(usable_hbm_bytes(node.hbm_bytes) for node in setup.catalog.nodes)
    refused = np.sort(arrived[np.frombuffer(run.ending, np.int8) == Ending.REFUSED])
    came = np.searchsorted(arrived, looks, side="right")
    came -= np.searchsorted(refused, looks, side="right")
    gpus = sum(node.gpus for node in setup.catalog.nodes)
    rungs = (int(Rung.SERVING),) * len(run.models)
    rows = zip(looks, given - returned, came - count_in, count_in - count_out, strict=True)
    return [
        Moment(
            at_us=int(at_us),
            gpus_there=gpus,
            gpus_serving=-(-int(used) // usable),
            hbm_idle_bytes=0,
            held=int(waiting),
            in_flight=int(running),
            rungs=rungs,
        )
        for at_us, used, waiting, running in rows
    ]
