"""Pasts written by hand, and gateways that are looked at, for the tests of foresight."""

from collections.abc import Callable, Mapping

import numpy as np

from placement.catalog import Catalog, ModelId, ServiceTimes
from placement.planning.demand import ModelDemand
from placement.snapshot import ClusterSnapshot
from prewarm.calendars import US, Calendar
from prewarm.controller import Observed
from prewarm.foresight.foreseeing import Foreseeing
from prewarm.foresight.learnt import Learnt, Usual
from prewarm.foresight.options import Options
from prewarm.series import Floats, Panel
from tests.builders import catalog, model

WIDTH_US = 300 * US
DAY_BINS = 288


def catalog_of(*models: str) -> Catalog:
    """Their requests run 2.6 s: 100 ms and 250 tokens of 10 ms; ten at once on a replica."""
    service = ServiceTimes(prefill_us=100_000, decode_step_us=10_000)
    return catalog(*(model(m, service=service, max_num_seqs=10) for m in models))


def past_of(models: tuple[str, ...], values: Floats) -> Learnt:
    usual = {m: Usual(prompt_tokens=100.0, output_tokens=250.0, dispersion=1.0) for m in models}
    panel = Panel(calendar=Calendar(0, WIDTH_US), streams=models, values=values)
    return Learnt(panel=panel, usual=usual)


def foreseen(
    values: Floats, seed: int = 1, options: Options | None = None, begins_us: int = 0
) -> Foreseeing:
    """Models a, b, ... with these counts of bins behind them."""
    models = tuple("abcdefgh"[: values.shape[1]])
    learnt = past_of(models, values)
    rng = np.random.default_rng(seed)
    return Foreseeing(catalog_of(*models), learnt, begins_us, rng, options or Options())


def steady(*per_bin: float, days: float = 1.5, seed: int = 0) -> Floats:
    """Poisson counts around the same number in every bin."""
    return poisson(np.tile(per_bin, (int(days * DAY_BINS), 1)), seed)


def poisson(means: Floats, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).poisson(means).astype(np.float64)


def together(count: int = 400, seed: int = 0) -> Floats:
    """Models a and b burst in the same bins, c as often but in others, none of it foreseeable."""
    rng = np.random.default_rng(seed)
    shared, own = rng.random(count) < 0.1, rng.random(count) < 0.1
    bursts = np.stack((shared, shared, own), axis=1)
    return poisson(np.where(bursts, 3000.0, 30.0), seed)


def looked_at(at_us: int, offered: Mapping[str, int], running: int = 0) -> Observed:
    demand = tuple(
        ModelDemand(model_id=ModelId(m), offered=count, in_flight=running)
        for m, count in offered.items()
    )
    return Observed(at_us=at_us, snapshot=ClusterSnapshot(version=0), demand=demand)


def watch(
    foresight: Foreseeing,
    from_us: int,
    until_us: int,
    asked: Callable[[str, float], int],
    running: int = 0,
) -> None:
    """Twice a second. `asked`: how much a model was asked in all by a time in seconds."""
    for at_us in range(from_us, until_us + 1, US // 2):
        offered = {m: asked(m, at_us / US) for m in foresight.models}
        foresight.see(looked_at(at_us, offered, running))
