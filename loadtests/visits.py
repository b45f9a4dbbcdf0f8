"""What the users of a load test do: whose they are, what they ask, when they leave. Seeded.

In: a seed, lengths, tenants, models. Out: `Visit`s, one after another. Never: sends, waits, shares
a stream of chance between two users (one more user must not change what the others do).
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

import msgspec

from loadtests.draws import Lognormal, stream
from loadtests.errors import AskedError
from loadtests.prompts import Prompts

SHARED_BLOCK_TOKENS = 16
PROMPT_SIGMA, OUTPUT_SIGMA = 0.9, 0.8
LENGTH_CAP = 4
"""No text is longer than so many times the mean."""

LEAVE_IN_MID_STREAM_SHARE = 0.5
LEAVE_AFTER_EVENTS_MAX = 8


T = TypeVar("T")


class Kind(StrEnum):
    """What kind of request it is; also the type of its row in locust's statistics."""

    CHAT = "chat"
    STREAM = "stream"


class Tenant(NamedTuple):
    """Who pays. An empty key sends no Authorization."""

    name: str
    weight: float
    key: str


NOBODY = Tenant("-", 1.0, "")


class Leave(NamedTuple):
    """When a client goes: after so many events with text, or after so long, whatever came."""

    after_events: int | None = None
    after_s: float | None = None


STAY = Leave()


class Visit(NamedTuple):
    """One request."""

    kind: Kind
    model: str
    body: bytes
    leave: Leave = STAY


class Habits(NamedTuple):
    """What all users have in common."""

    seed: int
    think_s: float
    prompt_tokens: float
    output_tokens: float
    leave_within_s: float


def tenants_in(text: str) -> tuple[Tenant, ...]:
    """Lines of `NAME WEIGHT KEY`; what follows a `#` is a comment. No line: nobody needs a key."""
    lines = enumerate((line.partition("#")[0].split() for line in text.splitlines()), start=1)
    return tuple(_tenant(number, words) for number, words in lines if words) or (NOBODY,)


def _tenant(number: int, words: list[str]) -> Tenant:
    """The line is not shown: it may hold a key."""
    weight = _weight(words[1]) if len(words) == 3 else None
    if weight is None:
        raise AskedError(f"tenants, line {number}: write `NAME WEIGHT KEY`, as `research 3 wt-…`")
    return Tenant(words[0], weight, words[2])


def weights_in(text: str) -> dict[str, float]:
    """`a=3,b`: names with weights, 1 where none is given."""
    found: dict[str, float] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, given, number = item.rpartition("=")
        weight = _weight(number) if given else 1.0
        if weight is None:
            raise AskedError(f"--models {item}: write `NAME` or `NAME=WEIGHT`, as `qwen3-8b=3`")
        found[name if given else item] = weight
    return found


def _weight(text: str) -> float | None:
    try:
        weight = float(text)
    except ValueError:
        return None
    return weight if 0 < weight < float("inf") else None


class Guest:
    """One user: a tenant's, drawn once, then visit after visit."""

    def __init__(
        self, name: str, habits: Habits, prompts: Prompts, tenants: Iterable[Tenant]
    ) -> None:
        self._habits = habits
        self._prompts = prompts
        self._rng = stream(habits.seed, f"guest {name}")
        self.tenant = self._one_of({tenant: tenant.weight for tenant in tenants})

    def think_s(self) -> float:
        """How long it reads and types before it asks again."""
        return float(self._rng.exponential(self._habits.think_s))

    def visit(self, kind: Kind, models: Mapping[str, float], *, leaves: bool = False) -> Visit:
        habits = self._habits
        model = self._one_of(models)
        prompt_tokens = self._length(habits.prompt_tokens, PROMPT_SIGMA)
        request: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": self._text(prompt_tokens)}],
            "max_tokens": self._length(habits.output_tokens, OUTPUT_SIGMA),
        }
        if kind is Kind.STREAM:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        leave = self._leave() if leaves else STAY
        return Visit(kind, model, msgspec.json.encode(request), leave)

    def _one_of(self, weighted: Mapping[T, float]) -> T:
        names = list(weighted)
        total = sum(weighted.values())
        shares = [weight / total for weight in weighted.values()]
        return names[int(self._rng.choice(len(names), p=shares))]

    def _length(self, mean: float, sigma: float) -> int:
        cap = max(1, round(mean * LENGTH_CAP))
        return int(Lognormal(mean, sigma, cap).draw(self._rng, 1)[0])

    def _text(self, tokens: int) -> str:
        """A text of its own each time: no prefix cache is to answer for the prompt."""
        return self._prompts.text(int(self._rng.integers(1 << 40)), tokens, (), SHARED_BLOCK_TOKENS)

    def _leave(self) -> Leave:
        """In mid-stream, or after a while: then it may still be held."""
        if self._rng.random() < LEAVE_IN_MID_STREAM_SHARE:
            return Leave(after_events=int(self._rng.integers(1, LEAVE_AFTER_EVENTS_MAX + 1)))
        return Leave(after_s=float(self._rng.uniform(0, self._habits.leave_within_s)))
