"""How the commands of this package end: a document, a table, a sentence. An edge, and a light one.

In: the work. Out: what it found, or a sentence on stderr and an exit code: 2 for what was asked, 1
for what failed or was stopped. Never: decides anything about the work.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from gateway.words import BAD_INPUT, FAILED, fail

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
TABLE_WIDTH_MIN = 110


def option(told: str, *names: str, **more: Any) -> Any:
    """An option whose help comes first."""
    return typer.Option(*names, help=told, **more)


def told(
    name: str, work: Callable[["Console"], T], *, as_json: bool, stopped: str = "stopped as asked"
) -> T:
    """Do the work; what went wrong becomes a sentence and an exit code."""
    import signal

    from rich.console import Console

    from loadtests.errors import AskedError
    from placement.catalog_problems import CatalogError
    from prewarm.history import NoHistoryError
    from prewarm.traces.records import TraceError

    # Ended politely, we end our processes as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work(Console(stderr=True))
    except (AskedError, TraceError, CatalogError) as error:
        fail(f"{name}: {error}", as_json=as_json, code=BAD_INPUT)
    except (OSError, NoHistoryError) as error:
        fail(f"{name}: {error}", as_json=as_json, code=FAILED)
    except KeyboardInterrupt:
        fail(f"{name}: {stopped}", as_json=as_json, code=FAILED)


def screen(*, markup: bool = True) -> "Console":
    """For tables on stdout; into a file or a pipe they keep their whole width. Without `markup` a
    name with brackets is shown as it stands."""
    from rich.console import Console

    out = Console(highlight=False, markup=markup)
    if out.is_terminal:
        return out
    return Console(width=max(out.width, TABLE_WIDTH_MIN), highlight=False, markup=markup)


def without_plots(error: ModuleNotFoundError) -> Exception:
    """What to raise where a module that draws cannot be imported: matplotlib is an extra, and its
    absence is said before an hour's run."""
    from loadtests.errors import AskedError

    if (error.name or "").partition(".")[0] != "matplotlib":
        return error
    return AskedError(
        "a report with plots needs matplotlib, which is not installed: install the extra "
        "`reports`, as in pip install 'warmtide[reports]'"
    )
