"""How slow forecasters get their fits: asked for when due, taken when done. Pure.

In: the forecasters, the past, somebody who fits: a process beside us, or whoever runs a back-test.
Out: each forecaster's newest path, and what failed, in words. Never: waits for a fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from placement.catalog import DemandEvent
from prewarm.forecasters.paths import FitRequest, Path, PathForecaster
from prewarm.past import Past


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    path: Path
    fit_s: float
    """All streams together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Nothing came of a request."""

    forecaster: str
    why: str


class Fits(Protocol):
    """Who fits: `background.Background` beside a gateway, `background.InPlace` in a back-test."""

    def submit(self, request: FitRequest) -> None: ...

    def poll(self) -> list[Fitted | Failed]:
        """What is done by now, without waiting."""

    def close(self) -> None: ...


def refit(
    forecasters: Mapping[str, PathForecaster],
    past: Past,
    fits: Fits,
    country: str = "",
    events: tuple[DemandEvent, ...] = (),
) -> list[Fitted | Failed]:
    """Ask for what is due, take what is done. To be called after every bin, before it is read."""
    for forecaster in forecasters.values():
        request = forecaster.request(past, country, events)
        if request is not None:
            fits.submit(request)
    done = fits.poll()
    for one in done:
        match one:
            case Fitted(path=path):
                forecasters[path.forecaster].accept(path)
            case Failed(forecaster=name, why=why):
                forecasters[name].failed(past.now, why)
    return done
