"""Continuous batching of one emulated replica. Time handed in, token counts out.

In: sequences (prompt tokens, output tokens, prefix blocks) and the time. Out: `Progress` records
and the next time at which something happens. Never: sleeps, reads a clock, draws, makes text.

Iterations as in vLLM: chunked prefill beside one decode token a sequence, admission in order of
arrival while KV tokens and sequence slots last. Short of KV room the newest sequence is
*preempted* (it gives its KV back and is computed again), not reserved for beforehand. A run of
pure decode steps is one span in closed form, so its cost does not grow with the number of steps.
"""

from collections import OrderedDict, deque
from typing import NamedTuple

from placement.service_time import Timing

BLOCK_TOKENS = 16
_BUDGET_TOKENS = 8192
_PREFIX_BLOCKS_MAX = 8192
"""Bounds the process, not the model: a remembered block costs about a hundred bytes."""


class Progress(NamedTuple):
    """What one sequence gained until `at_us`, the time of its last token."""

    seq_id: int
    tokens: int
    at_us: int
    first: bool
    finished: bool


class Sequence:
    """One request inside the engine. Mutable: it is the hot path."""

    __slots__ = (
        "admitted_us",
        "arrived_us",
        "blocks",
        "done_tokens",
        "first_token_us",
        "hang_after",
        "output_tokens",
        "prefilled",
        "prompt_tokens",
        "seq_id",
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

    @property
    def context_tokens(self) -> int:
        return self.prompt_tokens + self.done_tokens

    @property
    def until_stop(self) -> int:
        """Tokens until it ends or hangs."""
        if self.hang_after is None:
            return self.output_tokens - self.done_tokens
        return min(self.output_tokens, self.hang_after) - self.done_tokens


class _Span:
    """Steps under way: one mixed iteration, or a run of `steps` decode steps."""

    __slots__ = ("context", "done", "duration_us", "members", "start_us", "steps")

    def __init__(
        self, start_us: int, steps: int, members: list[Sequence], context: int, duration_us: int
    ) -> None:
        self.start_us = start_us
        self.steps = steps
        self.members = members
        self.context = context
        self.duration_us = duration_us
        """Of a mixed iteration; 0 marks a decode run."""
        self.done = 0


class Batch:
    """The scheduler of one replica.

    `advance(now)` before every other call: they act at the time of the last advance.
    """

    def __init__(
        self, timing: Timing, kv_tokens: int, max_num_seqs: int, budget_tokens: int = _BUDGET_TOKENS
    ) -> None:
        self.timing = timing
        self.kv_tokens = kv_tokens
        self.max_num_seqs = max_num_seqs
        self.budget_tokens = max(budget_tokens, max_num_seqs + 1)
        self.paused = False
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.kv_used = 0
        self._now_us = 0
        self._waiting: deque[Sequence] = deque()
        self._held: deque[Sequence] = deque()
        self._running: OrderedDict[int, Sequence] = OrderedDict()
        self._stuck: dict[int, Sequence] = {}
        self._span: _Span | None = None
        self._chunks: list[tuple[Sequence, int]] = []
        self._prefix: OrderedDict[int, None] = OrderedDict()
        self._prefix_max = min(kv_tokens // BLOCK_TOKENS, _PREFIX_BLOCKS_MAX)

    @property
    def running(self) -> int:
        return len(self._running) + len(self._stuck)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._held)

    @property
    def kv_usage(self) -> float:
        return self.kv_used / self.kv_tokens if self.kv_tokens else 0.0

    @property
    def drained(self) -> bool:
        """Nothing from before the pause is left. What came after it waits."""
        return not self._running and not self._stuck and not self._waiting

    def add(self, seq: Sequence) -> None:
        """Queue a sequence. Its output is cut to what the KV cache can ever hold."""
        assert seq.prompt_tokens < self.kv_tokens, "refuse what can never fit at the door"
        seq.output_tokens = min(seq.output_tokens, self.kv_tokens - seq.prompt_tokens)
        (self._held if self.paused else self._waiting).append(seq)
        self._end_run_early()
        self._plan()

    def cancel(self, seq_id: int) -> Sequence | None:
        """Take a sequence out and free what it holds, at once. None if it is not here."""
        seq = self._running.pop(seq_id, None) or self._stuck.pop(seq_id, None)
        if seq is not None:
            self.kv_used -= seq.context_tokens
            self._end_run_early()
            self._plan()
            return seq
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
        self._span, self._chunks = None, []
        if mode == "abort":
            queued = (s.seq_id for s in (*self._waiting, *self._held))
            gone = [*self._running, *self._stuck, *queued]
            self._held.clear()
            self._running.clear()
            self._stuck.clear()
            self._waiting.clear()
            self.kv_used = 0
            return gone
        for seq_id in reversed(list(self._running)):
            self._waiting.appendleft(self._preempt(seq_id))
        self._held.extendleft(reversed(self._waiting))
        self._waiting.clear()
        return []

    def resume(self) -> None:
        self.paused = False
        self._waiting.extend(self._held)
        self._held.clear()
        self._plan()

    def forget_prefixes(self) -> None:
        """The KV cache was dropped, or its content no longer belongs to the weights."""
        self._prefix.clear()

    def next_us(self) -> int | None:
        """When the next first token or end of a sequence may fall. None while nothing runs."""
        span = self._span
        return None if span is None else self._step_end_us(span, span.steps)

    def step_end_us(self, not_before_us: int) -> int | None:
        """The first step end at or after this time within what is planned. None while idle."""
        span = self._span
        if span is None:
            return None
        steps = self._steps_by(span, not_before_us - 1) + 1
        return self._step_end_us(span, min(max(steps, span.done + 1), span.steps))

    def advance(self, now_us: int) -> list[Progress]:
        """Do all steps that end by `now_us`; what each sequence gained, in order of time."""
        gained: list[Progress] = []
        self._now_us = max(now_us, self._now_us)
        while (span := self._span) is not None:
            steps = self._steps_by(span, now_us)
            if steps > span.done:
                self._apply(span, steps, gained)
            if steps < span.steps:
                break
            end_us = self._step_end_us(span, span.steps)
            self._span = None
            self._plan(end_us)
        return gained

    def _step_end_us(self, span: _Span, steps: int) -> int:
        if span.duration_us:
            return span.start_us + span.duration_us
        return span.start_us + self.timing.run_us(steps, len(span.members), span.context)

    def _steps_by(self, span: _Span, now_us: int) -> int:
        """How many steps of the span have ended by then, by bisection."""
        low, high = span.done, span.steps
        while low < high:
            middle = (low + high + 1) // 2
            if self._step_end_us(span, middle) <= now_us:
                low = middle
            else:
                high = middle - 1
        return low

    def _apply(self, span: _Span, steps: int, gained: list[Progress]) -> None:
        tokens = steps - span.done
        span.done = steps
        at_us = self._step_end_us(span, steps)
        for seq, chunk in self._chunks:
            self._end_chunk(seq, chunk, at_us, gained)
        self._chunks = []
        for seq in span.members:
            if seq.seq_id in self._running:
                self._give(seq, tokens, at_us, gained)

    def _end_chunk(self, seq: Sequence, chunk: int, at_us: int, gained: list[Progress]) -> None:
        if seq.seq_id not in self._running:
            return
        seq.prefilled += chunk
        if seq.prefilled >= seq.context_tokens:
            self._remember(seq)
            self._give(seq, 1, at_us, gained)

    def _give(self, seq: Sequence, tokens: int, at_us: int, gained: list[Progress]) -> None:
        first = seq.first_token_us is None
        if first:
            seq.first_token_us = at_us
        seq.done_tokens += tokens
        seq.prefilled += tokens
        self.kv_used += tokens
        finished = seq.done_tokens >= seq.output_tokens
        gained.append(Progress(seq.seq_id, tokens, at_us, first, finished))
        if finished:
            del self._running[seq.seq_id]
            self.kv_used -= seq.context_tokens
        elif seq.until_stop <= 0:
            self._stuck[seq.seq_id] = self._running.pop(seq.seq_id)

    def _plan(self, now_us: int | None = None) -> None:
        """Admit and lay out the next span, unless one is under way."""
        if self._span is not None:
            return
        start_us = self._now_us if now_us is None else now_us
        self._admit(start_us)
        if not self._running:
            return
        behind = [s for s in self._running.values() if s.prefilled < s.context_tokens]
        if behind:
            self._plan_mixed(start_us, behind)
        else:
            self._plan_run(start_us)

    def _admit(self, now_us: int) -> None:
        # One free token a running sequence is kept, else an admission would cause a preemption.
        while self._waiting and self.running < self.max_num_seqs:
            seq = self._waiting[0]
            if self.kv_used + seq.context_tokens + len(self._running) + 1 > self.kv_tokens:
                if self.running:
                    return
                assert seq.context_tokens < self.kv_tokens, "refused at the door"
            self._waiting.popleft()
            if seq.admitted_us is None:
                seq.admitted_us = now_us
            self._running[seq.seq_id] = seq
            self.kv_used += seq.context_tokens
            seq.prefilled = self._hit(seq)

    def _plan_mixed(self, start_us: int, behind: list[Sequence]) -> None:
        self._make_room()
        waiting_ids = {s.seq_id for s in behind}
        members = [s for s in self._running.values() if s.seq_id not in waiting_ids]
        budget = self.budget_tokens - len(members)
        ended = 0
        for seq in behind:
            if seq.seq_id not in self._running:
                continue
            chunk = min(seq.context_tokens - seq.prefilled, budget)
            if chunk <= 0:
                break
            budget -= chunk
            ended += seq.prefilled + chunk >= seq.context_tokens
            self._chunks.append((seq, chunk))
        if not members and not self._chunks:
            return
        context = sum(s.context_tokens for s in members)
        computed = sum(chunk for _, chunk in self._chunks)
        duration = self.timing.iteration_us(computed, ended, len(members), context)
        self._span = _Span(start_us, 1, members, context, duration)

    def _plan_run(self, start_us: int) -> None:
        self._make_room()
        members = list(self._running.values())
        if not members:
            return
        room = (self.kv_tokens - self.kv_used) // len(members)
        steps = min(room, min(s.until_stop for s in members))
        context = sum(s.context_tokens for s in members)
        self._span = _Span(start_us, max(steps, 1), members, context, 0)

    def _make_room(self) -> None:
        """Preempt the newest until every running sequence can gain one token."""
        while self._running and self.kv_used + len(self._running) > self.kv_tokens:
            if len(self._running) <= 1 and not self._stuck:
                return
            newest = next(reversed(self._running))
            self._waiting.appendleft(self._preempt(newest))
            self.preemptions += 1

    def _preempt(self, seq_id: int) -> Sequence:
        seq = self._running.pop(seq_id)
        self.kv_used -= seq.context_tokens
        seq.prefilled = 0
        return seq

    def _end_run_early(self) -> None:
        """Let the step under way end, then plan anew: somebody came or left."""
        span = self._span
        if span is not None and not span.duration_us:
            span.steps = min(span.steps, span.done + 1)

    def _hit(self, seq: Sequence) -> int:
        """Prompt tokens already in the prefix cache; at least one is always computed."""
        hit = 0
        for block in seq.blocks:
            if block not in self._prefix:
                break
            self._prefix.move_to_end(block)
            hit += BLOCK_TOKENS
        hit = min(hit, seq.context_tokens - 1)
        self.prefix_queries += seq.prompt_tokens
        self.prefix_hits += hit
        return hit

    def _remember(self, seq: Sequence) -> None:
        for block in seq.blocks:
            self._prefix[block] = None
            self._prefix.move_to_end(block)
        while len(self._prefix) > self._prefix_max:
            self._prefix.popitem(last=False)
