"""A plan's rows and lines as people read them, the same on the screen and in a report. Pure.

In: an explained plan. Out: cells, sentences. Never: draws a table.
"""

from collections.abc import Iterator

from loadtests.plans.asked import Asked
from placement.catalog_units import human_bytes, human_time
from placement.planning.explained import Explained, ToldAction
from placement.planning.pictured import LinkLoad, NodePicture, Presence
from placement.planning.told import seconds, words
from placement.snapshot import Rung

HEADS = ("#", "action", "replica", "where", "why")
NODES_DRAWN_MAX = 16

Pair = tuple[NodePicture, NodePicture]
"""A node before and after."""


def title(asked: Asked) -> str:
    """Whose facts these are, and of when."""
    found = asked.explained
    return (
        f"{found.policy} at {human_time(found.now_us)} on snapshot {found.snapshot_version}, "
        f"from {asked.record.source}"
    )


def action_rows(found: Explained, *, explain: bool) -> Iterator[list[str]]:
    """With the reason in words, or its code alone."""
    for action in found.actions:
        why = action.why if explain else words(action.reason.code)
        yield [str(action.number), action.verb, _what(action), _where(action), why]
    for change in found.nodes or ():
        why = change.why if explain else words(change.reason.code)
        yield ["", f"{change.change} node", "", change.node_id, why]


def _what(action: ToldAction) -> str:
    """The replica, or the model where there is none, and who steps down for it."""
    lines = [action.replica_id or action.model_id]
    if action.model_id not in lines[0]:
        lines.append(f"of {action.model_id}")
    if action.takes_us:
        lines.append(f"in {seconds(action.takes_us / 1e6)}")
    for victim in action.victims:
        to = "ends" if victim.to is None else f"to {Rung(victim.to).name.lower()}"
        lines.append(f"{victim.replica_id} {to}")
    return "\n".join(lines)


def _where(action: ToldAction) -> str:
    gpus = ",".join(map(str, action.gpu_ids))
    return f"{action.node_id} GPU {gpus}" if gpus else action.node_id


def want_lines(found: Explained) -> Iterator[str]:
    """Who waits once per model and reason, in the order of the plan."""
    for want in dict.fromkeys(found.wants):
        eta = f"; room in {seconds(want.eta_us / 1e6)}" if want.eta_us else ""
        yield f"not granted: {want.model_id}: {want.why}{eta}"


def nothing_said(found: Explained) -> str:
    """Where a plan has no action: that this is what it says."""
    return "" if found.actions or found.nodes else "The plan changes nothing."


# --- pictures


def drawn(found: Explained, *, all_nodes: bool) -> tuple[list[Pair], str]:
    """The nodes to draw, those that change first in line; and what is said of the others."""
    pairs = list(zip(found.before, found.after, strict=True))
    if all_nodes or len(pairs) <= NODES_DRAWN_MAX:
        return pairs, ""
    changing = [pair for pair in pairs if pair[0] != pair[1] or _marked(pair)]
    chosen = changing[:NODES_DRAWN_MAX]
    left = len(pairs) - len(chosen)
    more = (
        f", {len(changing) - len(chosen)} of them with actions" if changing[len(chosen) :] else ""
    )
    return chosen, f"{left} further nodes{more} are not drawn; --all-nodes draws them"


def _marked(pair: Pair) -> bool:
    return any(block.actions for node in pair for gpu in node.gpus for block in gpu.blocks)


def node_line(before: NodePicture, after: NodePicture) -> str:
    """What it is, and its host memory."""
    if before.presence in (Presence.ABSENT, Presence.COMING):
        return f"{before.node_id}: {before.presence}, {before.gpu_type}"
    lost = " LOST" if before.presence is Presence.LOST else ""
    reserved = _changed(
        human_bytes(before.host_reserved_bytes), human_bytes(after.host_reserved_bytes)
    )
    return (
        f"{before.node_id}{lost}: {len(before.gpus)} × {before.gpu_type}; "
        f"host {reserved} of {human_bytes(before.host_bytes)}"
    )


def budget_lines(before: NodePicture, after: NodePicture) -> Iterator[str]:
    """Links, promised rooms, and who stands beside the GPUs."""
    now = {load.link: load for load in before.links}
    for load in after.links:
        yield f"{_LINKS[load.link.value]}: {_changed(_load(now.get(load.link)), _load(load))}"
    promised = {m for gpu in after.gpus for m in gpu.promised_to}
    for model in sorted(promised):
        gpus = [str(gpu.gpu_id) for gpu in after.gpus if model in gpu.promised_to]
        yield f"room is made for {model} on GPU {','.join(gpus)}"
    for block in after.beside:
        yield f"without a GPU: {block.replica_id} {block.stand}, host {human_bytes(block.bytes)}"


_LINKS = {
    "object_store": "object store",
    "disk": "disk",
    "loader": "weights loader",
    "h2d": "host to GPU",
    "d2h": "GPU to host",
}


def _load(load: LinkLoad | None) -> str:
    if load is None:
        return "nothing"
    return f"{human_bytes(load.bytes)}, {seconds(load.seconds)} of it"


def _changed(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"
