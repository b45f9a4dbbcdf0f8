"""What forecasting costs: figures, what they may be at most, how they are told. Pure.

In: figures that `costing` measured. Out: `Verdict`s, rows of a report. Never: measures.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from loadtests.forecasts.verdicts import Verdict
from loadtests.study.lines import heads, row

UPDATE_MS, REFIT_S, REFIT_MB = 1.0, 60.0, 1000.0
"""What forecasting may cost at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Processor time, measured in a process of its own on one core."""

    one_update_ms: float
    """To learn a bin."""
    one_predict_ms: float
    """To forecast, at all horizons and levels."""
    one_horizons: int
    fleet_streams: int
    fleet_bins: int
    fleet_fit_s: float
    fleet_update_ms: float
    fleet_predict_ms: float
    fleet_rss_mb: float
    fit_s: dict[str, float]
    """Of each slow library, on one stream of two weeks of 5-minute bins."""
    failed: dict[str, str]

    def judged(self) -> list[Verdict]:
        fleet = f"{self.fleet_streams} models x {self.fleet_bins} bins"
        one = f"{self.one_horizons} horizons"
        targets = (
            (f"update of one model ≤ {UPDATE_MS:g} ms", one, self.one_update_ms, UPDATE_MS),
            (f"refit on one core ≤ {REFIT_S:g} s", fleet, self.fleet_fit_s, REFIT_S),
            (f"memory of a refit ≤ {REFIT_MB:g} MB", fleet, self.fleet_rss_mb, REFIT_MB),
        )
        return [
            Verdict(what, where, f"{found:.3g}", found - most)
            for what, where, found, most in targets
        ]


def cost_lines(costs: Costs | None) -> Iterator[str]:
    yield "## What it costs"
    yield ""
    if costs is None:
        yield "Not measured."
        yield ""
        return
    yield "Processor time, each in a process of its own, bound to one core."
    yield ""
    yield from heads(("what", "found", "aimed at"))
    fleet = f"{costs.fleet_streams} models x {costs.fleet_bins} bins"
    yield row(
        [
            f"update of one model with a bin, {costs.one_horizons} horizons",
            f"{costs.one_update_ms:.3f} ms",
            f"{UPDATE_MS:g} ms",
        ]
    )
    yield row(
        [f"forecast of it, {costs.one_horizons} horizons", f"{costs.one_predict_ms:.3f} ms", "–"]
    )
    yield row(
        [f"refit of {fleet}, the default set", f"{costs.fleet_fit_s:.1f} s", f"{REFIT_S:g} s"]
    )
    yield row([f"peak memory of that, {fleet}", f"{costs.fleet_rss_mb:.0f} MB", f"{REFIT_MB:g} MB"])
    yield row(
        [
            f"update of {costs.fleet_streams} models, and their forecast",
            f"{costs.fleet_update_ms:.1f} ms, {costs.fleet_predict_ms:.1f} ms",
            "–",
        ]
    )
    for name, took_s in costs.fit_s.items():
        yield row([f"fit of one model by `{name}`, in the background", f"{took_s:.1f} s", "–"])
    for name, why in costs.failed.items():
        yield row([f"fit of one model by `{name}`", why, "–"])
    yield ""
