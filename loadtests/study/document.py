"""The JSON of `simulate` and `compare`. Pure.

In: cells, what failed, where the demand came from. Out: one document.
Never: a figure without its evidence: everything in it is simulated, every cell names its world.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from loadtests.study.cells import Cell
from loadtests.study.summary import summary

EVIDENCE = "simulated"

Document = dict[str, Any]


def document(
    scenario: str, question: str, cells: Sequence[Cell], lengths: str, failed: Sequence[str] = ()
) -> Document:
    """`failed` names the cells that have no figures, and why."""
    return {
        "scenario": scenario,
        "question": " ".join(question.split()),
        "evidence": EVIDENCE,
        "demand": cells[0].demand if cells else None,
        "lengths": lengths,
        "cells": [msgspec.to_builtins(cell) for cell in cells],
        "summary": summary(cells),
        "failed": list(failed),
    }
