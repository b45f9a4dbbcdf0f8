"""What was asked of each model, in windows of ten seconds that fold into coarser ones. Pure.

In: arrivals and ends of requests, with their times. Out: a `Window` for each model and ten seconds,
and the folds of many into one. Never: reads a clock, takes a second that nobody watched for a quiet
one: `covered_us` says how much of a window was watched; of an absent one it was nothing.
"""

from collections.abc import Iterable, Sequence

from placement.catalog import Frozen

US = 1_000_000
FINE_S = 10
COARSE_S = (60, 300)
FINE_US = FINE_S * US


class HistoryRow(Frozen, frozen=True, kw_only=True):
    """One model in one window. Concurrency counts held and running requests, weighted by time."""

    model: str
    start_us: int
    width_s: int
    offered: int
    retries: int
    refused: int
    prompt_tokens: int
    output_tokens: int
    conc_mean: float
    conc_max: int
    conc_p50: int
    conc_p95: int
    covered_s: float


class Window(Frozen, frozen=True, kw_only=True):
    """A row with the time spent at each concurrency, from which the coarser ones are folded."""

    model: str
    start_us: int
    width_s: int
    offered: int = 0
    retries: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    levels_us: dict[int, int]

    @property
    def covered_us(self) -> int:
        return sum(self.levels_us.values())

    def row(self) -> HistoryRow:
        covered_us, levels = self.covered_us, self.levels_us
        area = sum(level * spent_us for level, spent_us in levels.items())
        return HistoryRow(
            model=self.model,
            start_us=self.start_us,
            width_s=self.width_s,
            offered=self.offered,
            retries=self.retries,
            refused=self.refused,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            conc_mean=area / covered_us if covered_us else 0.0,
            conc_max=max(levels, default=0),
            conc_p50=level_at(levels, 0.50),
            conc_p95=level_at(levels, 0.95),
            covered_s=covered_us / US,
        )


def level_at(levels_us: dict[int, int], share: float) -> int:
    """The smallest concurrency that was not exceeded for this share of the time."""
    wanted_us = share * sum(levels_us.values())
    spent_us = 0
    for level in sorted(levels_us):
        spent_us += levels_us[level]
        if spent_us >= wanted_us:
            return level
    return 0


def fold(parts: Sequence[Window], start_us: int, width_s: int) -> Window:
    """One window over all that was seen of one model in its parts. Raises nothing on holes."""
    assert parts, "nothing was seen: that is a hole, not a window"
    levels_us: dict[int, int] = {}
    for part in parts:
        for level, spent_us in part.levels_us.items():
            levels_us[level] = levels_us.get(level, 0) + spent_us
    return Window(
        model=parts[0].model,
        start_us=start_us,
        width_s=width_s,
        offered=sum(p.offered for p in parts),
        retries=sum(p.retries for p in parts),
        refused=sum(p.refused for p in parts),
        prompt_tokens=sum(p.prompt_tokens for p in parts),
        output_tokens=sum(p.output_tokens for p in parts),
        levels_us=levels_us,
    )


class _Meter:
    """One model's open window. Mutated on the hot path."""

    __slots__ = (
        "concurrency", "levels_us", "offered", "output_tokens", "prompt_tokens", "refused",
        "retries", "since_us",
    )  # fmt: skip

    def __init__(self, now_us: int) -> None:
        self.concurrency = 0
        self.since_us = now_us
        self.reset()

    def reset(self) -> None:
        self.offered = self.retries = self.refused = self.prompt_tokens = self.output_tokens = 0
        self.levels_us: dict[int, int] = {}

    def spend(self, until_us: int) -> None:
        """Account for the time since the last change."""
        spent_us = until_us - self.since_us
        if spent_us > 0:
            level = self.concurrency
            self.levels_us[level] = self.levels_us.get(level, 0) + spent_us
            self.since_us = until_us

    def window(self, model: str, start_us: int) -> Window:
        return Window(
            model=model,
            start_us=start_us,
            width_s=FINE_S,
            offered=self.offered,
            retries=self.retries,
            refused=self.refused,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            levels_us=self.levels_us,
        )


class WindowBook:
    """The open window of every watched model, and the closed ones until they are taken.

    `patience_us`: how late `roll` may come before the windows that it missed count as holes. A
    process that was stopped saw nothing meanwhile.
    """

    def __init__(self, now_us: int, patience_us: int) -> None:
        self._patience_us = patience_us
        self._start_us = now_us // FINE_US * FINE_US
        self.end_us = self._start_us + FINE_US
        """When the open window is over: `roll` is due."""
        self._meters: dict[str, _Meter] = {}
        self._closed: list[Window] = []

    def watch(self, models: Iterable[str], now_us: int) -> None:
        """From now on these are watched, and no others, but for what still runs."""
        self.roll(now_us)
        wanted = set(models)
        for model in sorted(wanted - self._meters.keys()):
            self._meters[model] = _Meter(now_us)
        for model in [m for m in self._meters if m not in wanted]:
            meter = self._meters[model]
            if not meter.concurrency:
                meter.spend(now_us)
                self._closed.append(meter.window(model, self._start_us))
                del self._meters[model]

    def arrive(self, model: str, now_us: int, *, retry: bool) -> None:
        """A request came. One that a client sends again is no demand of its own."""
        if now_us >= self.end_us:
            self.roll(now_us)
        meter = self._meters.get(model)
        if meter is None:
            meter = self._meters[model] = _Meter(now_us)
        level, spent_us = meter.concurrency, now_us - meter.since_us
        if spent_us > 0:  # `spend`, written out: every request comes and goes here
            meter.levels_us[level] = meter.levels_us.get(level, 0) + spent_us
            meter.since_us = now_us
        meter.concurrency = level + 1
        if retry:
            meter.retries += 1
        else:
            meter.offered += 1

    def depart(
        self, model: str, now_us: int, *, refused: bool, prompt_tokens: int, output_tokens: int
    ) -> None:
        """A request that had arrived has ended, in whatever way."""
        if now_us >= self.end_us:
            self.roll(now_us)
        meter = self._meters[model]
        level, spent_us = meter.concurrency, now_us - meter.since_us
        assert level > 0, "a request ended twice"
        if spent_us > 0:
            meter.levels_us[level] = meter.levels_us.get(level, 0) + spent_us
            meter.since_us = now_us
        meter.concurrency = level - 1
        meter.refused += refused
        meter.prompt_tokens += prompt_tokens
        meter.output_tokens += output_tokens

    def roll(self, now_us: int) -> None:
        """Close every window that is over."""
        while self.end_us <= now_us:
            for model, meter in self._meters.items():
                meter.spend(self.end_us)
                self._closed.append(meter.window(model, self._start_us))
                meter.reset()
            self._open(self.end_us)
            if now_us - self._start_us > self._patience_us:
                self._skip_to(now_us)

    def take(self) -> list[Window]:
        """The windows closed since this was last asked."""
        closed, self._closed = self._closed, []
        return closed

    def finish(self, now_us: int) -> list[Window]:
        """All that is not taken yet, and the open windows as far as they have come."""
        self.roll(now_us)
        for model, meter in self._meters.items():
            meter.spend(now_us)
            if meter.levels_us:
                self._closed.append(meter.window(model, self._start_us))
                meter.reset()
        return self.take()

    def _open(self, start_us: int) -> None:
        self._start_us, self.end_us = start_us, start_us + FINE_US

    def _skip_to(self, now_us: int) -> None:
        """Nobody watched: a hole up to now."""
        self._open(now_us // FINE_US * FINE_US)
        for meter in self._meters.values():
            meter.since_us = now_us
