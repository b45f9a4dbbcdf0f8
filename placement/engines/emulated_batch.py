"""Continuous batching of one emulated replica. Time handed in, token counts out.

In: sequences (prompt tokens, output tokens, prefix blocks) and the time. Out: `Progress` records
and the next time at which something happens. Never: sleeps, reads a clock, draws, makes text.

Iterations as in vLLM: chunked prefill beside one decode token a sequence, admission in order of
arrival while KV tokens and sequence slots last. Short of KV room the newest sequence is
*preempted* (it gives its KV back and is computed again), not reserved for beforehand. Whoever
arrives or leaves lets the step under way end; then the next iteration is laid out.

A run of pure decode steps is one *span* in closed form. In it everybody gains one token a step, so
the replica counts steps and a sequence only knows since which step it decodes: an event costs the
logarithm of the sequences, however many they are and however long the span.
"""

from heapq import heappop, heappush

from placement.catalog import ModelSpec
from placement.engines.emulated_fixed import FixedBatch
from placement.engines.emulated_prefix import PrefixCache
from placement.engines.emulated_scheduler import BLOCK_TOKENS, Progress, Scheduler, Sequence
from placement.service_time import Timing, kv_tokens, timing_of

__all__ = ["BLOCK_TOKENS", "Batch", "FixedBatch", "Progress", "Scheduler", "Sequence", "batch_of"]

_BUDGET_TOKENS = 8192


class _Span:
    """Steps under way: one mixed iteration, or a run of `steps` decode steps.

    `sequences` and `context` are those at its start: they time its steps, whoever leaves meanwhile.
    """

    __slots__ = ("context", "done", "end_us", "mixed", "sequences", "start_us", "steps")

    def __init__(
        self, start_us: int, end_us: int, steps: int, sequences: int, context: int, mixed: bool
    ) -> None:
        self.start_us = start_us
        self.end_us = end_us
        self.steps = steps
        self.sequences = sequences
        self.context = context
        self.mixed = mixed
        self.done = 0


class Batch(Scheduler):
    """The scheduler of one replica."""

    def __init__(
        self, timing: Timing, kv_tokens: int, max_num_seqs: int, budget_tokens: int = _BUDGET_TOKENS
    ) -> None:
        super().__init__(kv_tokens, max_num_seqs)
        self.timing = timing
        self.budget_tokens = max(budget_tokens, max_num_seqs + 1)
        self._prefix = PrefixCache(kv_tokens)
        self._behind: dict[int, Sequence] = {}
        """Those that run and whose prompt is not computed yet, in order of admission."""
        self._stops: list[tuple[int, int, Sequence]] = []
        """A heap of (step at which it ends or hangs, place, sequence). May hold who left."""
        self._admissions = 0
        self._steps = 0
        self._decoding = 0
        self._context = 0
        """Tokens of context of those that decode."""
        self._kv_used = 0
        """Of all that run or hang."""
        self._span: _Span | None = None
        self._chunks: list[tuple[Sequence, int]] = []

    @property
    def kv_used(self) -> int:
        self._catch_up()
        return self._kv_used

    def cancel(self, seq_id: int) -> Sequence | None:
        self._catch_up()
        hangs = self._stuck.get(seq_id)
        if hangs is not None:
            self._kv_used -= hangs.context_tokens
        return super().cancel(seq_id)

    def pause(self, mode: str) -> list[int]:
        self._catch_up()
        gone = super().pause(mode)
        if mode == "abort":
            self._kv_used = 0
        return gone

    def forget_prefixes(self) -> None:
        self._prefix.forget()

    def next_us(self) -> int | None:
        span = self._span
        return None if span is None else span.end_us

    def step_end_us(self, not_before_us: int) -> int | None:
        span = self._span
        if span is None:
            return None
        steps = self._steps_by(span, max(not_before_us - 1, self._now_us)) + 1
        return self._step_end_us(span, min(steps, span.steps))

    def advance(self, now_us: int) -> list[Progress]:
        gained: list[Progress] = []
        self._now_us = now_us = max(now_us, self._now_us)
        while (span := self._span) is not None:
            steps = self._steps_by(span, now_us)
            if steps > span.done:
                at_us = self._step_end_us(span, steps)
                self._take_steps(span, steps)
                self._end_chunks(at_us, gained, everyone=True)
                self._tell_everyone(at_us, gained)
            if steps < span.steps:
                break
            self._span = None
            self._plan(span.end_us)
        return gained

    def milestones(self, now_us: int) -> list[Progress]:
        told: list[Progress] = []
        self._now_us = now_us = max(now_us, self._now_us)
        while (span := self._span) is not None and span.end_us <= now_us:
            self._take_steps(span, span.steps)
            if span.mixed:
                self._end_chunks(span.end_us, told, everyone=False)
            self._end_due(span.end_us, told)
            self._span = None
            self._plan(span.end_us)
        return told

    # Steps.

    def _step_end_us(self, span: _Span, steps: int) -> int:
        if steps == span.steps:
            return span.end_us
        return span.start_us + self.timing.run_us(steps, span.sequences, span.context)

    def _steps_by(self, span: _Span, now_us: int) -> int:
        """How many steps of the span have ended by then."""
        if span.end_us <= now_us:
            return span.steps
        if span.mixed or now_us <= span.start_us:
            return span.done
        run_us = now_us - span.start_us
        return max(self.timing.steps_within(run_us, span.sequences, span.context), span.done)

    def _take_steps(self, span: _Span, steps: int) -> None:
        """Each sequence that decodes gains a token a step."""
        fresh = steps - span.done
        span.done = steps
        gained = fresh * self._decoding
        self._steps += fresh
        self._context += gained
        self._kv_used += gained

    def _catch_up(self) -> None:
        """Count the steps that have ended since the span was last looked at."""
        span = self._span
        if span is not None and not span.mixed:
            self._take_steps(span, self._steps_by(span, self._now_us))

    def _changed(self) -> None:
        """Let the step under way end, then plan anew."""
        span = self._span
        if span is None:
            self._plan(self._now_us)
        elif not span.mixed:
            self._catch_up()
            if span.steps > span.done + 1:
                end_us = self._step_end_us(span, span.done + 1)
                span.steps, span.end_us = span.done + 1, end_us

    def _stopped(self) -> None:
        self._span = None
        self._chunks.clear()

    def _end_chunks(self, at_us: int, told: list[Progress], everyone: bool) -> None:
        for seq, chunk in self._chunks:
            if not seq.place:
                continue  # cancelled meanwhile
            seq.prefilled += chunk
            if seq.prefilled >= seq.context_tokens:
                self._end_prefill(seq, at_us, told, everyone)
        self._chunks.clear()

    def _end_prefill(self, seq: Sequence, at_us: int, told: list[Progress], everyone: bool) -> None:
        """The iteration that ends a prefill yields a token, as in vLLM; then it decodes."""
        self._prefix.remember(seq.blocks)
        del self._behind[seq.seq_id]
        seq.done_tokens += 1
        seq.origin = self._steps - seq.done_tokens
        self._kv_used += 1
        self._decoding += 1
        self._context += seq.context_tokens
        first = seq.first_token_us is None
        if first:
            seq.first_token_us = at_us
        left = seq.until_stop
        if everyone or first or seq.done_tokens >= seq.output_tokens:
            told.append(seq.tell(at_us, first))
        if left <= 0:
            self._stop(seq)
        else:
            heappush(self._stops, (self._steps + left, seq.place, seq))

    def _tell_everyone(self, at_us: int, told: list[Progress]) -> None:
        for seq in list(self._running.values()):
            if seq.seq_id in self._behind:
                continue
            seq.done_tokens = self._steps - seq.origin
            if seq.done_tokens > seq.told_tokens:
                told.append(seq.tell(at_us))
                if seq.until_stop <= 0:
                    self._stop(seq)

    def _end_due(self, at_us: int, told: list[Progress]) -> None:
        stops = self._stops
        while stops and stops[0][0] <= self._steps:
            _, place, seq = heappop(stops)
            if seq.place != place:
                continue
            seq.done_tokens = self._steps - seq.origin
            if seq.done_tokens >= seq.output_tokens:
                told.append(seq.tell(at_us))
            self._stop(seq)

    def _stop(self, seq: Sequence) -> None:
        """It has all its tokens, or hangs: then it keeps its slot and its KV."""
        self._leave(seq)
        if seq.done_tokens < seq.output_tokens:
            self._stuck[seq.seq_id] = seq
            self._kv_used += seq.context_tokens

    def _leave(self, seq: Sequence) -> None:
        del self._running[seq.seq_id]
        seq.place = 0
        if self._behind.pop(seq.seq_id, None) is None:
            seq.done_tokens = self._steps - seq.origin
            self._decoding -= 1
            self._context -= seq.context_tokens
        self._kv_used -= seq.context_tokens

    # Planning.

    def _plan(self, start_us: int) -> None:
        """Admit, and lay out the next span. None may be under way."""
        if self._waiting:
            self._admit(start_us)
        if not self._running:
            return
        mixed = bool(self._behind)
        if self._kv_used + len(self._running) > self.kv_tokens:
            self._make_room()
        if mixed:
            self._plan_mixed(start_us)
        elif self._decoding:
            self._plan_run(start_us)

    def _admit(self, now_us: int) -> None:
        # One free token a running sequence is kept, else an admission would cause a preemption.
        waiting, running = self._waiting, self._running
        while waiting and self.running < self.max_num_seqs:
            seq = waiting[0]
            if self._kv_used + seq.context_tokens + len(running) + 1 > self.kv_tokens:
                if self.running:
                    return
                assert seq.context_tokens < self.kv_tokens, "refused at the door"
            waiting.popleft()
            if seq.admitted_us is None:
                seq.admitted_us = now_us
            self._admissions += 1
            seq.place = self._admissions
            running[seq.seq_id] = self._behind[seq.seq_id] = seq
            self._kv_used += seq.context_tokens
            # At least one token of a prompt is always computed.
            seq.prefilled = min(self._prefix.known_tokens(seq.blocks), seq.context_tokens - 1)
            self.prefix_queries += seq.prompt_tokens
            self.prefix_hits += seq.prefilled

    def _plan_mixed(self, start_us: int) -> None:
        sequences, context = self._decoding, self._context
        budget = self.budget_tokens - sequences
        computed = ended = 0
        for seq in self._behind.values():
            left = seq.context_tokens - seq.prefilled
            chunk = min(left, budget - computed)
            if chunk <= 0:
                break
            computed += chunk
            ended += chunk == left
            self._chunks.append((seq, chunk))
        if not sequences and not computed:
            return
        duration_us = self.timing.iteration_us(computed, ended, sequences, context)
        self._span = _Span(start_us, start_us + duration_us, 1, sequences, context, mixed=True)

    def _plan_run(self, start_us: int) -> None:
        sequences, context = self._decoding, self._context
        room = (self.kv_tokens - self._kv_used) // sequences
        steps = max(min(room, self._next_stop() - self._steps), 1)
        end_us = start_us + self.timing.run_us(steps, sequences, context)
        self._span = _Span(start_us, end_us, steps, sequences, context, mixed=False)

    def _next_stop(self) -> int:
        """The step at which the first of those that decode ends or hangs."""
        stops = self._stops
        while stops[0][2].place != stops[0][1]:
            heappop(stops)
        return stops[0][0]

    def _make_room(self) -> None:
        """Preempt the newest until every running sequence can gain one token."""
        while self._running and self._kv_used + len(self._running) > self.kv_tokens:
            if len(self._running) <= 1 and not self._stuck:
                return
            newest = self._running[next(reversed(self._running))]
            self._leave(newest)
            self._waiting.appendleft(newest)
            self.preemptions += 1


def batch_of(spec: ModelSpec, gpu_type: str) -> Scheduler:
    """An empty replica of the model: by its own fixed figures if it has them, else by the GPU's."""
    if spec.service is None:
        return Batch(timing_of(spec, gpu_type), kv_tokens(spec), spec.max_num_seqs)
    service = spec.service
    return FixedBatch(
        service.prefill_us, service.decode_step_us, kv_tokens(spec), spec.max_num_seqs
    )
