"""From the name of a cell and a seed to a cluster before its workload."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from lodestar.data.log import Workload
from lodestar.data.workloads.load import load_workload
from lodestar.data.workloads.presets import preset_text
from lodestar.data.workloads.recipe import recipe_of, with_settings
from lodestar.data.workloads.simulate import no_sources, simulate
from lodestar.data.workloads.transforms import warp
from lodestar.data.workspace import Workspace
from lodestar.pipeline.headline.plan import Effort, Spec, engines_of
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.events import Event
from lodestar.pipeline.replay.saturation import full_view, saturation_per_s

__all__ = ["World", "at_rates", "rates_per_s", "world"]

#: What is replayed where the name of a cell is not that of a preset.
_PRESET_OF: Final = {"sharing-shift": "sharing05-50-shift", "failure": "sharing47", "scale-out": "sharing47"}
#: Shares of the load before and after a shift of the rate: 50 % and 90 % of saturation where the load is 75 %.
_RATE_SHIFT: Final = (0.5 / 0.75, 0.9 / 0.75)
_SATURATION_SEED: Final = 1000  # of a draw that no run replays
_WINDOWS: Final = 5  # whole windows of 600 s in the conversation trace
_WINDOW_REQUESTS: Final = 1500  # each has more


class World(NamedTuple):
    """One draw of a cell.

    Attributes:
        cluster: instances, events and workload.
        changed_from: first request after the change in the middle; None where nothing changes.
    """

    cluster: Cluster
    changed_from: int | None


def world(spec: Spec, effort: Effort, seed: int) -> World:
    """Draw a cell; another seed draws other arrivals and other prompts.

    >>> made = world(Spec("failure", "homogeneous", 0.75), Effort(requests=40), seed=1)
    >>> made.changed_from, [event.kind for event in made.cluster.events]
    (20, ['fail'])
    """
    workload = at_rates(_drawn(spec.workload, effort, effort.first_seed + seed), rates_per_s(spec, effort))
    engines = [engine for group in engines_of(spec.fleet) for engine in group]
    middle = len(workload) // 2
    kind = {"failure": "fail", "scale-out": "join"}.get(spec.workload)
    events = [Event(float(workload.arrived_at_s[middle]), kind, 0)] if kind else []
    cluster = Cluster.of(engines, workload, full_view(engines), events)
    return World(cluster, middle if spec.changes else None)


@cache
def rates_per_s(spec: Spec, effort: Effort) -> tuple[float, ...]:
    """Return the requests a second of each part of the run, the same for all seeds.

    The load counts all instances, also one that is yet to join or will fail.
    """
    most_per_s = saturation_per_s(engines_of(spec.fleet), _drawn(spec.workload, effort, _SATURATION_SEED))
    parts = _RATE_SHIFT if spec.workload == "rate-shift" else (1.0,)
    return tuple(spec.load * part * most_per_s for part in parts)


def at_rates(workload: Workload, rates_per_s: Sequence[float]) -> Workload:
    """Stretch the time of each of as many parts, equal in requests, so that its mean rate is as given.

    >>> none = np.zeros(0, int), np.zeros(6, int)
    >>> workload = Workload(np.array([0.0, 1.0, 3.0, 4.0, 6.0]), np.ones(5, int), np.ones(5, int), *none, 16)
    >>> at_rates(workload, [1.0, 3.0]).arrived_at_s.tolist()
    [0.0, 0.6666666666666666, 2.0, 2.3333333333333335, 3.0]
    """
    n, parts = len(workload), len(rates_per_s)
    cuts = [n * part // parts for part in range(parts)] + [n]
    from_s = [float(workload.arrived_at_s[min(cut, n - 1)]) for cut in cuts[1:]]
    to_s = np.cumsum([(end - begin) / rate for begin, end, rate in zip(cuts, cuts[1:], rates_per_s, strict=False)])
    return warp(workload, list(zip(from_s, to_s.tolist(), strict=True)))


def _drawn(name: str, effort: Effort, seed: int) -> Workload:
    if name == "conversation":
        return _conversation(effort, seed)
    table = with_settings(_toml(_PRESET_OF.get(name, name)), [f"requests={effort.requests}"])
    return simulate(recipe_of(table), seed)


def _conversation(effort: Effort, seed: int) -> Workload:
    """Return the trace as the paper reads it; seed 0 takes its first 600 s, as the paper does, others later ones.

    They are repeated as often as the run needs, each copy with prefixes of its own.
    """
    window = {
        "source": str(effort.conversation),
        "from_s": 600.0 * (seed % _WINDOWS),
        "copies": -(-effort.requests // _WINDOW_REQUESTS),
    }
    settings = [f"trace.{name}={value}" for name, value in window.items()]
    load = _trace if effort.conversation else no_sources
    return simulate(recipe_of(with_settings(_toml("conversation"), settings)), seed, load).head(effort.requests)


@cache
def _trace(source: str) -> Workload:
    with tempfile.TemporaryDirectory() as folder:
        return load_workload(Workspace.open(Path(folder)), str(Path(source).resolve()))


def _toml(preset: str) -> dict[str, object]:
    return tomllib.loads(preset_text(preset))
