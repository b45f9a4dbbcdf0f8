"""Every forecaster that can be named: built in, of libraries, of other packages. An edge.

In: a name; entry points of `warmtide.forecasters`, each a `Factory` or a `PointFactory`, told apart
by what it makes: whatever has `points` is a `PointForecaster`. Out: what makes the forecaster, or
an `UnknownForecasterError` that says what there is. Never: replaces a built-in forecaster, loads a
package that was not asked for, lets what a foreign one raises or says out unchecked.
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points

from prewarm.forecast import Forecaster, PointForecaster, Setting
from prewarm.forecasters.guarded import Guarded, GuardedPoints
from prewarm.forecasters.libraries import HEAVY
from prewarm.forecasters.paths import PathForecaster
from prewarm.forecasters.registry import POINTS

GROUP = "warmtide.forecasters"

Made = Forecaster | PointForecaster
Makes = Callable[[Setting], Made]


class UnknownForecasterError(Exception):
    """No forecaster of this name, or one that cannot be loaded: what it is, and what to do."""


def forecaster_names() -> list[str]:
    """All that can be asked for, the built-in ones first."""
    ours = [*POINTS, *HEAVY]
    return [*ours, *sorted({e.name for e in entry_points(group=GROUP)} - set(ours))]


def forecaster_named(name: str) -> Makes:
    """What it makes is a `PathForecaster` where the fits are somebody else's to run."""
    if name in POINTS:
        return POINTS[name]
    if name in HEAVY:
        return partial(PathForecaster, name=name)
    for entry in entry_points(group=GROUP, name=name):
        return partial(_foreign, _loaded(entry), entry)
    known = ", ".join(forecaster_names())
    raise UnknownForecasterError(f"no forecaster is called {name!r}; there are {known}")


def _loaded(entry: EntryPoint) -> Makes:
    try:
        found: Makes = entry.load()
    except Exception as error:  # another package's code may raise anything
        raise _broken(entry, "loaded", error) from error
    return found


def _foreign(make: Makes, entry: EntryPoint, setting: Setting) -> Guarded | GuardedPoints:
    try:
        made = make(setting)
    except Exception as error:
        raise _broken(entry, "made", error) from error
    if callable(getattr(made, "points", None)):
        return GuardedPoints(entry.name, made, setting)  # type: ignore[arg-type]
    if callable(getattr(made, "predict", None)):
        return Guarded(entry.name, made, setting)  # type: ignore[arg-type]
    raise UnknownForecasterError(
        f"forecaster {entry.name!r} of {_package(entry)} makes a {type(made).__name__}, which has "
        "neither 'points' nor 'predict': see prewarm/forecast.py for what one must have"
    )


def _broken(entry: EntryPoint, what: str, error: Exception) -> UnknownForecasterError:
    return UnknownForecasterError(
        f"forecaster {entry.name!r} cannot be {what} ({type(error).__name__}: {error}): "
        f"mend or remove the package {_package(entry)}"
    )


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value
