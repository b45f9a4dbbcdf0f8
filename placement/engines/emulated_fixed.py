"""A replica whose service times are given, not computed: slots, and nobody slows anybody.

In: sequences and the time. Out: `Progress` records and the next time at which something happens.
Never: sleeps, reads a clock, draws, makes text.

So published set-ups state their figures: a request's first token comes `prefill_us` after it is
taken in, each further one `decode_step_us` later, and at most so many requests run at once. Its
milestones are known when it is admitted. The KV cache bounds one request's length and nothing else.
"""

from heapq import heappop, heappush

from placement.engines.emulated_scheduler import Progress, Scheduler, Sequence


class FixedBatch(Scheduler):
    """The scheduler of one such replica."""

    def __init__(
        self, prefill_us: int, decode_step_us: int, kv_tokens: int, max_num_seqs: int
    ) -> None:
        super().__init__(kv_tokens, max_num_seqs)
        self.prefill_us = max(prefill_us, 1)
        self.decode_step_us = max(decode_step_us, 1)
        self._admissions = 0
        self._due: list[tuple[int, int, Sequence]] = []
        """A heap of (when, place, sequence): its first token, then its end. May hold who left."""

    @property
    def kv_used(self) -> int:
        for seq in self._running.values():
            seq.done_tokens = self._done_by(seq, self._now_us)
        return sum(s.context_tokens for s in (*self._running.values(), *self._stuck.values()))

    def forget_prefixes(self) -> None:
        """A prefill takes its time whatever the cache knows."""

    def next_us(self) -> int | None:
        due = self._due
        while due and due[0][2].place != due[0][1]:
            heappop(due)
        return due[0][0] if due else None

    def step_end_us(self, not_before_us: int) -> int | None:
        looked_us = max(not_before_us - 1, self._now_us)
        ends = []
        for seq in self._running.values():
            tokens = min(self._done_by(seq, looked_us) + 1, self._stop_tokens(seq))
            ends.append(seq.origin + tokens * self.decode_step_us)
        return min(ends, default=None)

    def advance(self, now_us: int) -> list[Progress]:
        told = self._happen(now_us, everyone=True)
        for seq in self._running.values():
            seq.done_tokens = self._done_by(seq, self._now_us)
            if seq.done_tokens > seq.told_tokens:
                told.append(seq.tell(seq.origin + seq.done_tokens * self.decode_step_us))
        told.sort(key=_by_time)
        return told

    def milestones(self, now_us: int) -> list[Progress]:
        return self._happen(now_us, everyone=False)

    def _happen(self, now_us: int, everyone: bool) -> list[Progress]:
        """First tokens, ends, and what they make room for; hanging too, if everyone is told of."""
        told: list[Progress] = []
        self._now_us = now_us = max(now_us, self._now_us)
        due = self._due
        while due and due[0][0] <= now_us:
            at_us, place, seq = heappop(due)
            if seq.place != place:
                continue
            seq.done_tokens = (at_us - seq.origin) // self.decode_step_us
            stops = seq.done_tokens >= self._stop_tokens(seq)
            if seq.first_token_us is None:
                seq.first_token_us = at_us
                told.append(seq.tell(at_us, first=True))
            elif everyone or seq.done_tokens >= seq.output_tokens:
                told.append(seq.tell(at_us))
            if stops:
                self._stop(seq, at_us)
            else:
                self._await_stop(seq)
        return told

    def _await_stop(self, seq: Sequence) -> None:
        stop_us = seq.origin + self._stop_tokens(seq) * self.decode_step_us
        heappush(self._due, (stop_us, seq.place, seq))

    def _stop(self, seq: Sequence, at_us: int) -> None:
        del self._running[seq.seq_id]
        seq.place = 0
        if seq.done_tokens < seq.output_tokens:
            self._stuck[seq.seq_id] = seq
        else:
            self._admit(at_us)

    def _admit(self, now_us: int) -> None:
        while self._waiting and self.running < self.max_num_seqs:
            seq = self._waiting.popleft()
            if seq.admitted_us is None:
                seq.admitted_us = now_us
            self._admissions += 1
            seq.place = self._admissions
            self._running[seq.seq_id] = seq
            self.prefix_queries += seq.prompt_tokens
            next_us = now_us + self.prefill_us
            seq.origin = next_us - (seq.done_tokens + 1) * self.decode_step_us
            if seq.first_token_us is None:
                heappush(self._due, (next_us, seq.place, seq))
            else:
                self._await_stop(seq)

    def _stop_tokens(self, seq: Sequence) -> int:
        """Its tokens when it ends or hangs; a hang comes after a first token at the earliest."""
        if seq.hang_after is None:
            return seq.output_tokens
        return min(seq.output_tokens, max(seq.hang_after, 1))

    def _done_by(self, seq: Sequence, now_us: int) -> int:
        by_time = (now_us - seq.origin) // self.decode_step_us
        return max(min(by_time, self._stop_tokens(seq)), seq.done_tokens)

    def _leave(self, seq: Sequence) -> None:
        seq.done_tokens = self._done_by(seq, self._now_us)
        del self._running[seq.seq_id]
        seq.place = 0

    def _changed(self) -> None:
        self._admit(self._now_us)

    def _stopped(self) -> None:
        self._due.clear()


def _by_time(progress: Progress) -> int:
    return progress.at_us
