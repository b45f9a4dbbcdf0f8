"""Continuous batching written out: every iteration by itself, every token by itself.

The rules are those in the header of `placement.engines.emulated_batch`; nothing here is quick.
Only the rounding is shared: within a run that nobody disturbs, step k ends at its start + `run_us`.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from placement.service_time import Timing


class Happening(NamedTuple):
    at_us: int
    what: Literal["add", "cancel"]
    seq_id: int
    prompt: int = 1
    output: int = 1
    hang_after: int | None = None


@dataclass(eq=False)
class Request:
    seq_id: int
    prompt: int
    output: int
    hang_after: int | None
    computed: int = 0
    token_us: list[int] = field(default_factory=list)

    @property
    def context(self) -> int:
        return self.prompt + len(self.token_us)

    @property
    def ended(self) -> bool:
        return len(self.token_us) >= self.output

    @property
    def hangs(self) -> bool:
        return self.hang_after is not None and len(self.token_us) >= self.hang_after


@dataclass
class Replica:
    timing: Timing
    kv_tokens: int
    slots: int
    budget: int
    now_us: int = 0
    preemptions: int = 0
    all: dict[int, Request] = field(default_factory=dict)
    waiting: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    stuck: list[Request] = field(default_factory=list)
    run: tuple[int, int, int, int] | None = None
    """Its start, its sequences, their context at its start, steps done."""

    @property
    def kv(self) -> int:
        return sum(r.context for r in (*self.running, *self.stuck))

    def play(self, day: list[Happening]) -> None:
        to_come = list(day)
        while True:
            self.admit()
            if self.running:
                self.iterate(to_come)
            elif to_come:
                self.now_us = max(self.now_us, to_come[0].at_us)
                self.happen(to_come.pop(0))
            else:
                return

    def happen(self, event: Happening) -> None:
        if event.what == "add":
            output = min(event.output, self.kv_tokens - event.prompt)
            request = Request(event.seq_id, event.prompt, output, event.hang_after)
            self.all[event.seq_id] = request
            self.waiting.append(request)
            self.run = None
            return
        leaving = self.all[event.seq_id]
        for place in (self.waiting, self.running, self.stuck):
            if leaving in place:
                place.remove(leaving)
                self.run = None

    def admit(self) -> None:
        while self.waiting and len(self.running) + len(self.stuck) < self.slots:
            first = self.waiting[0]
            one_each = len(self.running) + 1
            alone = not self.running and not self.stuck
            if self.kv + first.context + one_each > self.kv_tokens and not alone:
                return
            first.computed = 0
            self.running.append(self.waiting.pop(0))

    def iterate(self, to_come: list[Happening]) -> None:
        behind = [r for r in self.running if r.computed < r.context]
        self.make_room()
        if not self.running:
            return
        decoding = [r for r in self.running if r not in behind]
        chunks = self.chunks([r for r in behind if r in self.running], len(decoding))
        context = sum(r.context for r in decoding)
        if behind:
            computed = sum(chunk for _, chunk in chunks)
            ended = sum(r.computed + chunk == r.context for r, chunk in chunks)
            end_us = self.now_us + self.timing.iteration_us(computed, ended, len(decoding), context)
        else:
            start_us, sequences, at_start, done = self.run or (
                self.now_us,
                len(decoding),
                context,
                0,
            )
            self.run = start_us, sequences, at_start, done + 1
            end_us = start_us + self.timing.run_us(done + 1, sequences, at_start)
        while to_come and to_come[0].at_us < end_us:
            self.happen(to_come.pop(0))
        self.now_us = end_us
        for request, chunk in chunks:
            request.computed += chunk
        gaining = [r for r, _ in chunks if r.computed == r.context] + decoding
        self.give([r for r in gaining if r in self.running])
        if behind:
            self.run = None

    def make_room(self) -> None:
        while self.running and self.kv + len(self.running) > self.kv_tokens:
            if len(self.running) == 1 and not self.stuck:
                return
            self.waiting.insert(0, self.running.pop())
            self.preemptions += 1
            self.run = None

    def chunks(self, behind: list[Request], decoding: int) -> list[tuple[Request, int]]:
        found, budget = [], self.budget - decoding
        for request in behind:
            chunk = min(request.context - request.computed, budget)
            if chunk > 0:
                found.append((request, chunk))
                budget -= chunk
        return found

    def give(self, gaining: list[Request]) -> None:
        for request in gaining:
            request.token_us.append(self.now_us)
            request.computed += 1
            if request.ended or request.hangs:
                self.running.remove(request)
                self.run = None
                if not request.ended:
                    self.stuck.append(request)
