"""What to replay, on what, and how often: the settings of one replay, as the command line gives them."""

from __future__ import annotations

from dataclasses import dataclass, field

from lodestar.data.errors import ConfigError
from lodestar.pipeline.estimation.blocks import BLOCKS, FEWEST_BLOCKS, MOST_BLOCKS
from lodestar.pipeline.replay.cluster_spec import ClusterSpec
from lodestar.pipeline.replay.summary import Slo
from lodestar.pipeline.replay.sweep_points import Sweep, points
from lodestar.pipeline.replay.tuning.options import TuningOptions
from lodestar.pipeline.replay.window import WARMUP_RATIO

__all__ = ["Settings"]

_PLAIN = ("baseline", "engine", "engine_from", "kv_capacity_tokens", "instances", "arrivals_from", "record")


@dataclass(frozen=True, slots=True)
class Settings:
    """What to replay, and how often.

    Attributes:
        policies: names, or FILE.py:CLASS; the first is the baseline unless another is named.
        seeds: replays of each policy.
        seed: the first of them.
        baseline: policy that the others are compared with.
        engine: preset to use instead of calibrating.
        engine_from: dataset whose calibrated engines, or file of calibrated engines, to use instead.
        kv_capacity_tokens: of each engine, instead of the preset's or what the log tells.
        instances: size of the cluster, instead of what the log has.
        slo: latency targets.
        measured: datasets with the measured outcomes of other arms of the same traffic.
        arrivals_from: dataset that has the arrival times of the same requests.
        warmup_ratio: share of the requests, from the first on, that stand in no number.
        cluster: what is said of instances, events and the router's view.
        cluster_file: where that was read.
        shorthands: options of the command line that came on top of it.
        sweeps: what to vary.
        record: where to write the replays as decision logs.
        tuning: how to tune the policies; None: they stay as they are named.
        blocks: of consecutive requests, on which one-step intervals rest.
        same_requests: whether those of values are for these very requests once more, not for other traffic like them.
    """

    policies: list[str]
    seeds: int = 20
    seed: int = 0
    baseline: str | None = None
    engine: str | None = None
    engine_from: str | None = None
    kv_capacity_tokens: int | None = None
    instances: int | None = None
    slo: Slo = field(default_factory=Slo)
    measured: tuple[str, ...] = ()
    arrivals_from: str | None = None
    warmup_ratio: float = WARMUP_RATIO
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    cluster_file: str | None = None
    shorthands: tuple[str, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    record: str | None = None
    tuning: TuningOptions | None = None
    blocks: int = BLOCKS
    same_requests: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no comparison."""
        if not self.policies:
            raise ConfigError(
                "no policy to replay; expected at least one. Add --policy random, or see lodestar policies"
            )
        if self.seeds < 1:
            raise ConfigError(f"--seeds is {self.seeds}; expected at least 1")
        if not FEWEST_BLOCKS <= self.blocks <= MOST_BLOCKS:
            raise ConfigError(
                f"--blocks is {self.blocks}; expected {FEWEST_BLOCKS} to {MOST_BLOCKS}: fewer tell no spread, and more "
                f"are shorter than queues remember. Leave it out for {BLOCKS}"
            )
        if len(set(self.policies)) < len(self.policies):
            raise ConfigError(
                f"--policy {', '.join(self.policies)}: a policy is named twice; expected each once. Leave one out"
            )
        if self.baseline is not None and self.baseline not in self.policies:
            raise ConfigError(
                f"--baseline {self.baseline} is not replayed; expected one of {', '.join(self.policies)}. "
                "Add it as a --policy"
            )
        if len(set(self.measured)) < len(self.measured):
            raise ConfigError(
                f"--measured {', '.join(self.measured)}: a dataset is named twice; expected each once. Leave one out"
            )
        if self.engine and self.engine_from:
            raise ConfigError(
                f"--engine {self.engine} and --engine-from {self.engine_from}; expected one of them. Leave one out"
            )
        points(self.sweeps)

    def command(self, dataset: str, verb: str = "replay") -> str:
        """Return the command line that repeats this.

        >>> Settings(["random", "learned"], seeds=4).command("mine")
        'lodestar replay mine --policy random --policy learned --seeds 4 --seed 0'
        """
        words = [f"lodestar {verb}", dataset, *(f"--policy {name}" for name in self.policies)]
        words += [f"--seeds {self.seeds} --seed {self.seed}"]
        words += [f"--{name.replace('_', '-')} {value}" for name in _PLAIN if (value := getattr(self, name))]
        words += [f"--measured {name}" for name in self.measured]
        if self.warmup_ratio != WARMUP_RATIO:
            words += [f"--warmup-ratio {self.warmup_ratio:g}"]
        if self.slo != Slo():
            words += [f"--slo-ttft-ms {self.slo.ttft_ms:g}"]
            words += [f"--slo-tpot-ms {self.slo.tpot_ms:g}"] if verb == "replay" else []
        if self.blocks != BLOCKS:
            words += [f"--blocks {self.blocks}"]
        words += ["--same-requests"] if self.same_requests else []
        if self.cluster_file:
            words += [f"--cluster {self.cluster_file}"]
        words += [*self.shorthands, *(f"--sweep {sweep}" for sweep in self.sweeps)]
        words += self.tuning.words if self.tuning else []
        return " ".join(words)
