"""Panels from the store of a state directory, beside a running gateway too. An edge.

In: the history's file, what is forecast, how wide a bin shall be, since when. Out: the panel, with
notes per model on its holes. Never: reads finer rows where only sums are wanted.
"""

from collections.abc import Iterator
from pathlib import Path

from placement.catalog import Catalog
from prewarm.cleaning import Cleaned, remarked
from prewarm.demand_series import STORED_S, panel_of_rows
from prewarm.history import read_rows
from prewarm.series import Target
from prewarm.windows import HistoryRow


def read_demand(
    path: Path,
    target: Target,
    catalog: Catalog,
    *,
    width_s: int = 300,
    from_us: int = 0,
    to_us: int = 2**62,
    zone: str = "UTC",
) -> Cleaned:
    """Raises `NoHistoryError`; `ValueError` on a width that is no multiple of the store's."""
    rows = _rows(path, target, width_s, from_us, to_us)
    return remarked(panel_of_rows(rows, target, width_s, zone, catalog))


def _rows(
    path: Path, target: Target, width_s: int, from_us: int, to_us: int
) -> Iterator[HistoryRow]:
    making = [stored_s for stored_s in STORED_S if width_s % stored_s == 0]
    wanted = making if target is Target.CONCURRENCY_PEAK else making[-1:]
    for stored_s in wanted:
        yield from read_rows(path, stored_s, from_us=from_us, to_us=to_us)
