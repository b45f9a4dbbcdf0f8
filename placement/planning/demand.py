"""What is asked of each model, as facts for a decision.

In: arrivals with their times, answers, counts from the gateway. Out: `ModelDemand` records, rates.
Never: reads a clock, knows a request.
"""

from placement.catalog import Frozen, ModelId

US = 1_000_000


class ModelDemand(Frozen, frozen=True, kw_only=True):
    """One model now. `wanted`: somebody was refused only because the climb takes too long."""

    model_id: ModelId
    held: int = 0
    in_flight: int = 0
    oldest_held_us: int = 0
    rate_per_s: float = 0.0
    last_arrival_us: int = 0
    wanted: bool = False
    offered: int = 0
    """Arrivals since the gateway began, refused ones included."""
    answered: int = 0
    prompt_tokens: int = 0
    """Of all that were answered, together; so are the output tokens."""
    output_tokens: int = 0

    @property
    def asked(self) -> int:
        """Requests that want a slot now."""
        return max(self.held + self.in_flight, 1 if self.wanted else 0)


class RateMeter:
    """Arrivals per second with exponentially fading memory, one number per model.

    Arrivals are only counted; they are folded in when the rate is read, which happens every
    planning round, so that counting costs a request next to nothing.
    """

    def __init__(self, half_life_us: int) -> None:
        assert half_life_us > 0
        self._half_life_us = half_life_us
        self._weight: dict[str, float] = {}
        self._folded_us: dict[str, int] = {}
        self._fresh: dict[str, int] = {}
        self._offered: dict[str, int] = {}
        self._answered: dict[str, tuple[int, int, int]] = {}
        self.last_us: dict[str, int] = {}

    def arrive(self, model_id: str, now_us: int) -> None:
        self._fresh[model_id] = self._fresh.get(model_id, 0) + 1
        self.last_us[model_id] = now_us

    def ended(self, model_id: str, prompt_tokens: int, output_tokens: int) -> None:
        """A request was answered."""
        count, prompt, output = self._answered.get(model_id, (0, 0, 0))
        self._answered[model_id] = (count + 1, prompt + prompt_tokens, output + output_tokens)

    def offered(self, model_id: str) -> int:
        """Arrivals since the beginning."""
        return self._offered.get(model_id, 0) + self._fresh.get(model_id, 0)

    def answered(self, model_id: str) -> tuple[int, int, int]:
        """Requests that were answered, their prompt tokens and their output tokens."""
        return self._answered.get(model_id, (0, 0, 0))

    def rate_per_s(self, model_id: str, now_us: int) -> float:
        """The mean rate whose arrivals would have left this weight: weight × ln 2 ÷ half-life."""
        fresh = self._fresh.pop(model_id, 0)
        if fresh:
            self._offered[model_id] = self._offered.get(model_id, 0) + fresh
        weight = self._weight.get(model_id, 0.0)
        if not weight and not fresh:
            return 0.0
        age_us = max(0, now_us - self._folded_us.get(model_id, now_us))
        faded: float = weight * 0.5 ** (age_us / self._half_life_us) + fresh
        self._weight[model_id], self._folded_us[model_id] = faded, now_us
        return faded * 0.693147 * US / self._half_life_us
