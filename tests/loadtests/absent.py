"""A machine on which an extra is not installed, for as long as a test runs."""

import sys

import pytest

DRAWING = (
    "matplotlib",
    "loadtests.drawing",
    *("loadtests.study.html", "loadtests.study.plots"),
    *("loadtests.forecasts.html", "loadtests.forecasts.outlook_page", "loadtests.forecasts.plots"),
)


def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had imported it, or anything that imports it, and nobody could."""
    for name in [n for n in sys.modules if n.startswith(DRAWING)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
