"""The newest word about the cluster, and what was asked of it since. Mutated; decides nothing.

In: snapshots, actions asked for and over, promised GPU sets. Out: `Books`, worked out once for
each change. Never: acts.
"""

from collections.abc import Mapping

from loadtests.baselines.actions import Scribe
from loadtests.baselines.warmserve.books import Books, Copy, read
from placement.catalog import ModelSpec
from placement.plan import Action
from placement.snapshot import ClusterSnapshot


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

    def changed(self) -> None:
        self._books, self.settled = None, False

    def books(self) -> Books:
        if self._books is None:
            self._books = read(
                self.snapshot,
                self.specs,
                self._asked.values(),
                self._promises.values(),
                self.ahead,
                self.leaks,
            )
        return self._books
