"""What is expected of each model in the near future, as facts for a decision. Pure.

In: whoever forecasts fills it (`prewarm.foresight`). Out: probabilities and expectations for the
rung plan. Never: forecasts, draws. The paths behind it are joint: bit p of every mask belongs to
the same future, so that what models need *together* can be read off.
"""

from bisect import bisect_left

from placement.catalog import Frozen, ModelId


class ModelOutlook(Frozen, frozen=True, kw_only=True):
    """One model."""

    model_id: ModelId
    rate_per_s: float = 0.0
    """Offered arrivals a second, expected over the next seconds."""
    dispersion: float = 1.0
    """Variance over mean of the arrivals in some seconds: 1 is Poisson, bursts have more."""
    service_s: float = 1.0
    """How long a mean request runs on a warm replica."""
    slots: int = 1
    """Requests at once that one replica serves within the model's objectives, by tokens and KV."""
    acts: bool = True
    """Whether its forecast has earned the right to act; without it the model lives reactively."""
    need: tuple[tuple[bytes, ...], ...] = ()
    """For each horizon, for k = 1, 2, ...: the paths in which at least k replicas are needed at
    some time from now until then. One bit a path, big-endian; counts that no path needs are left
    out."""


class Outlook(Frozen, frozen=True, kw_only=True):
    """All models, at one moment."""

    made_us: int
    horizons_us: tuple[int, ...] = ()
    """How far ahead each horizon of `need` reaches, ascending."""
    paths: int = 1
    models: dict[str, ModelOutlook] = {}
    gpus: tuple[tuple[int, ...], ...] = ()
    """For each horizon, so far ahead, and for each path: the GPUs of all replicas that are needed
    within one short while. Less than the sum of `need`, whose peaks come at different times."""

    def of(self, model_id: str) -> ModelOutlook | None:
        return self.models.get(model_id)

    def mask(self, model_id: str, count: int, within_us: int) -> int:
        """The paths in which `count` replicas of a model are needed within that time, as bits.

        By the first horizon that reaches so far, else by the last one.
        """
        known = self.models.get(model_id)
        if known is None or count < 1 or not known.need:
            return 0
        counts = known.need[self._horizon(within_us)]
        return int.from_bytes(counts[count - 1]) if count <= len(counts) else 0

    def gpus_at(self, ahead_us: int) -> tuple[int, ...]:
        """The GPUs needed at once, that far ahead, on each path; none where nobody knows."""
        return self.gpus[self._horizon(ahead_us)] if self.gpus else ()

    def _horizon(self, ahead_us: int) -> int:
        return min(bisect_left(self.horizons_us, ahead_us), len(self.horizons_us) - 1)

    def share(self, mask: int) -> float:
        """The probability that a mask stands for."""
        return mask.bit_count() / self.paths
