"""The settings of `lodestar-published`: what was published, and the quirks of the released code."""

from __future__ import annotations

from dataclasses import dataclass, field

from lodestar.data.errors import ConfigError, unknown
from lodestar.models.network.network import NetworkSettings
from lodestar.pipeline.replay.routing.contract import tunable

__all__ = ["OUT_OF_RANGE", "PublishedSettings"]

#: What is tested against the ranges of training: nothing, the first instance, or every candidate.
OUT_OF_RANGE = ("off", "first", "all")


@dataclass(frozen=True, slots=True)
class PublishedSettings:
    """How the published loop decides and learns; defaults are what its experiments ran with.

    Sources: README, code (HEAD 23da2a0) and experiment scripts of gangmuk/Lodestar. As its authors intend it, by the
    README, is `AS_INTENDED` in `published`.

    Attributes:
        min_training_requests: samples before the first model; 5,000 in code and experiments, 1,000 in the README.
        update_requests: new samples that make a training due; 1,000 in README and experiments, 500 by default in code.
        flush_s: how often the gateway hands over finished requests.
        flush_requests: it keeps them for the next time unless there are more than so many.
        poll_s: how often the trainer looks whether a training is due.
        buffer_requests: capacity of the buffer of the newest samples, and of the replay buffer of diverse ones; 5,000
            each in the experiments.
        held_out_ratio: share of the rows that only tell the loss, and train nothing.
        epochs: passes over the others, from scratch each time; 20 online, 50 in the offline script.
        training_base_s: a training takes, whatever its rows; its model serves afterwards.
        training_row_us: it takes for each row, epoch and instance: the release runs its network on every instance of
            a sample, and takes the loss of the chosen one. 4.5 µs are measured on one core.
        include_gpu: whether the network is told the kind of hardware, where there are several.
        exploration: probability of a uniform choice; on, at a rate of 0, in the experiments, 0.1 by default in code.
        tie_ratio: a random one of the instances whose reward is at least the best · (1 - this). 0 in the experiments,
            0.1 by default in code. Rewards are negative, so that it does nothing unless the best is above 0.
        filtered_instances: how many instances a prefix group may go to while caches are full; 0 (none) in the script,
            2 in the README.
        saturation_ratio: mean cache usage from which that holds; 0.8 in the README, 0.5 in code, 0.6 in the script.
        group_depth_tokens: depth of the prefix that names a group.
        dropout_at_inference: quirk, on: the network is never switched to evaluation, so its decisions are noisy.
        no_in_flight_at_inference: quirk, on: in-flight prefill and decode requests are asked for before they are
            filled in, so that a decision reads 0 for both while training rows contain them.
        late_snapshots: quirk, on: a training row has the counters of after the decision: the request itself is one of
            the requests in flight, and its prompt one of the prompts ahead.
        longest_ms: quirk, on: slower requests are no samples, which cuts the tail off; 0 keeps all.
        out_of_range: quirk: 'off' in the experiments (``ENABLE_FALLBACK=0``), 'first' in the code (only the first
            instance is tested), 'all' as intended: where a candidate is outside the ranges of training, the heuristic
            decides. The ranges are those of all candidates of the samples so far.
        lost_flush_ratio: quirk: share of the flushes that time out (500 ms) and are lost. How many did is not known: 0.
    """

    min_training_requests: int = 5000
    update_requests: int = tunable(1000, 100, 2000, log=True, whole=True)
    flush_s: float = 10.0
    flush_requests: int = 100
    poll_s: float = 30.0
    buffer_requests: int = 5000
    held_out_ratio: float = field(default=0.2, metadata={"most": 0.9})
    epochs: int = 20
    training_base_s: float = 0.0
    training_row_us: float = 4.5
    include_gpu: bool = True
    exploration: float = field(default=0.0, metadata={"most": 1.0})
    tie_ratio: float = field(default=0.0, metadata={"most": 1.0})
    filtered_instances: int = tunable(0, 0, 4, whole=True)
    saturation_ratio: float = tunable(0.8, 0.3, 1.0, most=1.0)
    group_depth_tokens: int = 10
    dropout_at_inference: bool = True
    no_in_flight_at_inference: bool = True
    late_snapshots: bool = True
    longest_ms: float = 15_000.0
    out_of_range: str = OUT_OF_RANGE[0]
    lost_flush_ratio: float = field(default=0.0, metadata={"most": 1.0})

    def __post_init__(self) -> None:
        """Refuse what is no test, and what would never end.

        Raises:
            ConfigError: `out_of_range` is not one of `OUT_OF_RANGE`, or a time between two things to do is 0.
        """
        for name in ("flush_s", "poll_s"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} is {getattr(self, name):g}; expected more than 0. Correct it")
        if self.out_of_range not in OUT_OF_RANGE:
            raise unknown("out_of_range", self.out_of_range, OUT_OF_RANGE)

    @property
    def network(self) -> NetworkSettings:
        """Return those of the network."""
        return NetworkSettings(
            epochs=self.epochs,
            dropout_at_inference=self.dropout_at_inference,
            no_in_flight_at_inference=self.no_in_flight_at_inference,
        )

    def training_s(self, rows: int, instances: int) -> float:
        """Return how long a training takes.

        >>> round(PublishedSettings().training_s(rows=10_000, instances=7), 2)
        5.04
        """
        trained = rows * (1.0 - self.held_out_ratio)
        return self.training_base_s + 1e-6 * self.training_row_us * trained * self.epochs * instances
