"""The newest word about the cluster, and what was asked of it since. Mutated; decides nothing.

In: snapshots, actions asked for and over, promised GPU sets. Out: `Books`, worked out once for
each change. Never: acts.
"""

from collections.abc import Mapping

from loadtests.baselines.actions import Scribe
from loadtests.baselines.warmserve.books import Books, Copy, NodeBook, book_of
from placement.catalog import ModelSpec
from placement.plan import Action
from placement.snapshot import ClusterSnapshot, NodeState


class Belief:
    """What brain and gateway both act on. `settled` is for whoever worked out that nothing is to be
    done: any change takes it back."""

    def __init__(self, specs: Mapping[str, ModelSpec]) -> None:
        self.specs = specs
        self.scribe = Scribe("ws")
        self.snapshot = ClusterSnapshot(version=-1)
        self.ahead: set[str] = set()
        """World S: replicas that were started only to rest warm."""
        self.leaks: dict[tuple[str, int], int] = {}
        """4.11, 2: bytes that stay deducted, by node and GPU."""
        self.settled = False
        self._asked: dict[str, Action] = {}
        self._promises: dict[str, Copy] = {}
        self._books: Books | None = None
        self._kept: dict[str, tuple[NodeState, NodeBook]] = {}

    @property
    def stale(self) -> bool:
        """Something changed since the books were last read."""
        return self._books is None

    def see(self, snapshot: ClusterSnapshot) -> None:
        if snapshot.version != self.snapshot.version:
            self.snapshot = snapshot
            self.changed()

    def ask(self, action: Action) -> Action:
        self._asked[action.action_id] = action
        self.changed()
        return action

    def over(self, action_id: str) -> None:
        """An action ended or was refused: the next snapshot shows what became of it."""
        if self._asked.pop(action_id, None) is not None:
            self.changed()

    def promise(self, copy: Copy) -> None:
        """These GPUs are an instance's, though nothing on them shows it yet."""
        self._promises[copy.replica_id] = copy
        self.changed()

    def release(self, replica_id: str) -> None:
        """The cluster shows it by now, or never will."""
        del self._promises[replica_id]
        self.changed()

    def taken_up(self, copy: Copy) -> None:
        """World S: it was started ahead, and is more than that by now."""
        self.ahead.discard(copy.replica_id)
        self._kept.pop(copy.node_id, None)
        self.changed()

    def changed(self) -> None:
        self._books, self.settled = None, False

    def books(self) -> Books:
        if self._books is None:
            moved: set[str] = {a.node_id for a in self._asked.values()}
            moved |= {c.node_id for c in self._promises.values()}
            alive = [node for node in self.snapshot.nodes if node.alive]
            self._books = {n.node_id: self._book(n, moved=n.node_id in moved) for n in alive}
        return self._books

    def _book(self, node: NodeState, *, moved: bool) -> NodeBook:
        """Kept while the node looks the same and nothing is asked of it."""
        kept = self._kept.pop(node.node_id, None)
        if moved:
            asked = [a for a in self._asked.values() if a.node_id == node.node_id]
            claims = [c for c in self._promises.values() if c.node_id == node.node_id]
            return book_of(node, self.specs, asked, claims, self.ahead, self.leaks)
        if kept is None or kept[0] is not node:
            kept = node, book_of(node, self.specs, ahead=self.ahead, leaks=self.leaks)
        self._kept[node.node_id] = kept
        return kept[1]
