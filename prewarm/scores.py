"""What a back-test found: how far forecasts were off, how often they held, who made them. Pure.

In: nothing; `backtest` fills these. Out: frozen records, in the units of `definitions.md`: pinball
losses are divided by the mean of the stream's scored period. Never: mixes streams of other scales.
"""

from placement.catalog import Frozen


class Score(Frozen, frozen=True, kw_only=True):
    """One forecaster on one stream and horizon. NaN where nothing could be scored."""

    n: int
    wape: float
    """Sum of absolute errors of the median over the sum of what was asked."""
    mape: float
    """Mean of absolute relative errors, over the bins in which something was asked."""
    pinball_q50: float
    pinball_q90: float
    pinball_q95: float
    coverage_q90: float
    """By randomised PIT: the share of bins whose value lay within the 0.9 quantile."""
    coverage_q95: float
    worst_week_q90: float
    decision_cost: float
    """Newsvendor cost at the catalog's waiting:idle price, per bin, over the stream's mean."""
    decision_cost_quarter: float
    """The same at a quarter of the price, as if waiting had been priced too high."""
    decision_cost_fourfold: float
    """And at four times of it."""

    @property
    def pinball(self) -> float:
        return (self.pinball_q50 + self.pinball_q90 + self.pinball_q95) / 3


class HorizonResult(Frozen, frozen=True, kw_only=True):
    """Ours on one stream and horizon, with everyone that it chose from."""

    horizon_s: int
    score: Score
    clipped: int
    """Bands that were clipped: a quantile below 0, or above what the stream could ever show."""
    acted_share: float
    """Of the scored bins, where the gate let the forecast act."""
    method_share: dict[str, float]
    """How much of the blend each forecaster was, on average; sums to 1."""
    forecasters: dict[str, Score]
    """Each alone, with quantiles of its own trailing three-day residuals."""


class StreamResult(Frozen, frozen=True, kw_only=True):
    stream: str
    scored: float
    """Requests in the scored bins; under 100 the stream is listed and not averaged."""
    notes: tuple[str, ...]
    """What was wrong with the data, in words: holes, repaired cells, a counter reset."""
    horizons: tuple[HorizonResult, ...]


class Backtest(Frozen, frozen=True, kw_only=True):
    width_s: int
    first_scored: int
    """The first bin that was scored."""
    streams: tuple[StreamResult, ...]
    fit_s: dict[str, float]
    """Seconds that each forecaster took to fit, once, all streams together."""
    update_ms: float
    """Milliseconds to learn a bin, all streams together, on average."""
    predict_ms: float
    """The same to forecast."""
    staleness_s: dict[str, float]
    """How old a forecaster's fit was on average; 0 for those that learn with every bin, NaN for one
    that was never fitted."""
    worst_weeks_q90: tuple[float, ...] = ()
    """By horizon: the lowest coverage of a week, all averaged streams together. NaN where no week
    has bins enough."""
    troubles: dict[str, str] = {}
    """The last thing that went wrong with a forecaster, in words. Who is not named had none."""
