"""An explained plan as one JSON document. Pure.

In: a plan that was asked for. Out: plain data. Never: leaves out what the tables show.
"""

from typing import Any

import msgspec

from loadtests.plans.asked import Asked


def document(asked: Asked) -> dict[str, Any]:
    record, found = asked.record, msgspec.to_builtins(asked.explained)
    picture = {"before": found.pop("before"), "after": found.pop("after")}
    return {
        "source": record.source,
        "recorded_policy": record.policy,
        "notes": list(asked.notes),
        **found,
        "picture": picture,
    }
