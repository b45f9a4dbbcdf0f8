"""Requests inside an emulated engine, what is told of them, and what every scheduler does alike.

In: sequences that come, leave, and wait out pauses. Out: who waits, runs or hangs. Never: reads a
clock, knows how long anything takes.
"""

from abc import ABC, abstractmethod
from collections import deque
from typing import NamedTuple

BLOCK_TOKENS = 16


class Progress(NamedTuple):
    """What one sequence gained since it was last told of, until `at_us`, its last token's time."""

    seq_id: int
    tokens: int
    at_us: int
    first: bool
    finished: bool


class Sequence:
    """One request inside the engine. Mutable: it is the hot path.

    `done_tokens` is brought up to date whenever it is told of, is cancelled or loses its place.
    """

    __slots__ = (
        "admitted_us",
        "arrived_us",
        "blocks",
        "done_tokens",
        "first_token_us",
        "hang_after",
        "origin",
        "output_tokens",
        "place",
        "prefilled",
        "prompt_tokens",
        "seq_id",
        "told_tokens",
    )

    def __init__(
        self,
        seq_id: int,
        prompt_tokens: int,
        output_tokens: int,
        arrived_us: int,
        blocks: tuple[int, ...] = (),
        hang_after: int | None = None,
    ) -> None:
        assert prompt_tokens > 0, "an engine computes at least one prompt token"
        assert output_tokens > 0, "an engine answers with at least one token"
        self.seq_id = seq_id
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.arrived_us = arrived_us
        self.blocks = blocks
        self.hang_after = hang_after
        self.admitted_us: int | None = None
        self.first_token_us: int | None = None
        self.prefilled = 0
        self.done_tokens = 0
        self.told_tokens = 0
        self.place = 0
        """Which admission let it in, counted from 1; 0 while it does not run."""
        self.origin = 0
        """Where its tokens are counted from, as if it had always decoded: a step, or a time."""

    @property
    def context_tokens(self) -> int:
        return self.prompt_tokens + self.done_tokens

    @property
    def until_stop(self) -> int:
        """Tokens until it ends or hangs."""
        if self.hang_after is None:
            return self.output_tokens - self.done_tokens
        return min(self.output_tokens, self.hang_after) - self.done_tokens

    def tell(self, at_us: int, first: bool = False) -> Progress:
        """What it gained since it was last told of."""
        tokens = self.done_tokens - self.told_tokens
        self.told_tokens = self.done_tokens
        finished = self.done_tokens >= self.output_tokens
        return Progress(self.seq_id, tokens, at_us, first, finished)


class Scheduler(ABC):
    """Slots and a queue in front of them; the times are its subclasses' affair.

    `advance(now)` (or `milestones(now)`) before every other call: they act at the time of the last
    one. Use one of the two on a replica; what one leaves untold, the other tells with the next
    token only.
    """

    def __init__(self, kv_tokens: int, max_num_seqs: int) -> None:
        self.kv_tokens = kv_tokens
        self.max_num_seqs = max_num_seqs
        self.paused = False
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self._now_us = 0
        self._waiting: deque[Sequence] = deque()
        self._held: deque[Sequence] = deque()
        """Came during a pause."""
        self._running: dict[int, Sequence] = {}
        """In order of admission; the newest is the last."""
        self._stuck: dict[int, Sequence] = {}
        """Hang: they keep slot and KV, and get nothing more."""

    @property
    def running(self) -> int:
        return len(self._running) + len(self._stuck)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._held)

    @property
    @abstractmethod
    def kv_used(self) -> int:
        """Tokens of context of all that run."""

    @property
    def kv_usage(self) -> float:
        return min(self.kv_used / self.kv_tokens, 1.0) if self.kv_tokens else 0.0

    @property
    def drained(self) -> bool:
        """Nothing from before the pause is left. What came after it waits."""
        return not self._running and not self._stuck and not self._waiting

    def add(self, seq: Sequence) -> None:
        """Queue a sequence. Its output is cut to what the KV cache can ever hold."""
        assert seq.prompt_tokens < self.kv_tokens, "refuse what can never fit at the door"
        seq.output_tokens = min(seq.output_tokens, self.kv_tokens - seq.prompt_tokens)
        (self._held if self.paused else self._waiting).append(seq)
        self._changed()

    def cancel(self, seq_id: int) -> Sequence | None:
        """Take a sequence out and free what it holds, at once. None if it is not here."""
        seq = self._running.get(seq_id)
        if seq is not None:
            self._leave(seq)
        else:
            seq = self._stuck.pop(seq_id, None) or self._take_from_queue(seq_id)
        if seq is not None:
            self._changed()
        return seq

    def _take_from_queue(self, seq_id: int) -> Sequence | None:
        for queue in (self._waiting, self._held):
            for queued in queue:
                if queued.seq_id == seq_id:
                    queue.remove(queued)
                    return queued
        return None

    def pause(self, mode: str) -> list[int]:
        """Stop scheduling newcomers. `abort` ends all, `keep` freezes all, `wait` lets all end.

        Returns the ids of aborted sequences.
        """
        self.paused = True
        if mode == "wait":
            return []
        frozen = list(self._running.values())
        for seq in frozen:
            self._leave(seq)
        self._stopped()
        queued = [*self._waiting, *self._held]
        self._waiting.clear()
        self._held.clear()
        if mode == "keep":
            self._held.extend([*frozen, *queued])
            return []
        gone = [*frozen, *self._stuck.values(), *queued]
        self._stuck.clear()
        return [seq.seq_id for seq in gone]

    def resume(self) -> None:
        self.paused = False
        if self._held:
            self._waiting.extend(self._held)
            self._held.clear()
            self._changed()

    @abstractmethod
    def forget_prefixes(self) -> None:
        """The KV cache was dropped, or its content no longer belongs to the weights."""

    @abstractmethod
    def next_us(self) -> int | None:
        """When the next first token or end of a sequence may fall. None while nothing runs."""

    @abstractmethod
    def step_end_us(self, not_before_us: int) -> int | None:
        """When a token falls next at or after this time, as far as is planned. None while idle."""

    @abstractmethod
    def advance(self, now_us: int) -> list[Progress]:
        """Do all that is due by `now_us`; what each sequence gained, in order of time."""

    @abstractmethod
    def milestones(self, now_us: int) -> list[Progress]:
        """As `advance`, but only first tokens and ends are told; nobody else is touched.

        What is not told now counts in the `tokens` of the next report of the same sequence.
        """

    @abstractmethod
    def _leave(self, seq: Sequence) -> None:
        """Out of those that run, with its tokens counted and its KV given back."""

    @abstractmethod
    def _changed(self) -> None:
        """Somebody came or left, now."""

    @abstractmethod
    def _stopped(self) -> None:
        """Nothing runs any more; what was planned is void."""
