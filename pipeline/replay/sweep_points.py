"""What can be swept over a cluster, and the points that a few sweeps span."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

from lodestar.data.errors import ConfigError, unknown
from lodestar.data.workloads.transforms import scale_rate
from lodestar.pipeline.replay.cluster import Cluster

__all__ = ["PARAMETERS", "Point", "Sweep", "cluster_at", "parse_sweep", "points"]

#: Parameter → its value.
Point = dict[str, float | int]


@dataclass(frozen=True, slots=True)
class Parameter:
    """What can be swept.

    Attributes:
        apply: make the cluster for one value.
        kind: of a value.
        expected: of its values, in words.
        zero: whether zero is a value.
    """

    apply: Callable[[Cluster, Any], Cluster]
    kind: type[float] | type[int]
    expected: str
    zero: bool = False

    def value(self, text: str) -> float | int:
        """Read one value; ValueError if it is none."""
        value = self.kind(text)
        if not math.isfinite(value) or value < 0 or (value == 0 and not self.zero):
            raise ValueError(text)
        return value


def _rate(cluster: Cluster, factor: float) -> Cluster:
    return replace(cluster, workload=scale_rate(cluster.workload, factor))


def _instances(cluster: Cluster, count: int) -> Cluster:
    return replace(cluster, engines=[cluster.engines[j % len(cluster.engines)] for j in range(count)])


def _cache(cluster: Cluster, factor: float) -> Cluster:
    sizes = [round(engine.kv_capacity_tokens * factor) for engine in cluster.engines]
    engines = [replace(engine, kv_capacity_tokens=size) for engine, size in zip(cluster.engines, sizes, strict=True)]
    return replace(cluster, engines=engines)


def _view(name: str) -> Callable[[Cluster, float | int], Cluster]:
    def seen(cluster: Cluster, value: float | int) -> Cluster:
        changed: dict[str, Any] = {name: value}
        return replace(cluster, view=replace(cluster.view, **changed))

    return seen


PARAMETERS: Final[Mapping[str, Parameter]] = {
    "rate": Parameter(_rate, float, "factors above 0 on the rate of arrivals"),
    "instances": Parameter(_instances, int, "whole numbers of instances, 1 or more"),
    "cache": Parameter(_cache, float, "factors above 0 on the tokens that each engine's cache holds"),
    "scrape-interval-ms": Parameter(_view("scrape_interval_ms"), float, "milliseconds, 0 or more", zero=True),
    "index-capacity-blocks": Parameter(_view("index_capacity_blocks"), int, "blocks, 0 for no limit", zero=True),
    "index-ttl-s": Parameter(_view("index_ttl_s"), float, "seconds, 0 for ever", zero=True),
}


@dataclass(frozen=True, slots=True)
class Sweep:
    """One parameter and the values it takes."""

    parameter: str
    values: tuple[float | int, ...]

    def __str__(self) -> str:
        """Write it as the command line takes it."""
        return f"{self.parameter}={','.join(f'{value:g}' for value in self.values)}"


def parse_sweep(text: str) -> Sweep:
    """Read a sweep as the command line writes it: PARAMETER=VALUE,VALUE and so on.

    >>> parse_sweep("instances=4,8")
    Sweep(parameter='instances', values=(4, 8))
    """
    name, _, listed = text.partition("=")
    if name not in PARAMETERS:
        raise unknown("--sweep parameter", name, PARAMETERS)
    parameter = PARAMETERS[name]
    values = []
    for each in listed.split(","):
        try:
            values.append(parameter.value(each.strip()))
        except ValueError as error:
            raise ConfigError(
                f"--sweep {name}: {each.strip()!r} is no value; expected {parameter.expected}, with commas between "
                "them. Correct it"
            ) from error
    if len(set(values)) < len(values):
        raise ConfigError(f"--sweep {text}: a value is named twice; expected each once. Leave it out")
    return Sweep(name, tuple(values))


def points(sweeps: Sequence[Sweep]) -> list[Point]:
    """Return every combination of the values, the last parameter changing first.

    >>> points([parse_sweep("rate=1,2"), parse_sweep("instances=4,8")])[1]
    {'rate': 1.0, 'instances': 8}
    """
    names = [each.parameter for each in sweeps]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"--sweep {twice[0]} is given twice; expected once. Join the values with commas")
    return [dict(zip(names, values, strict=True)) for values in product(*(each.values for each in sweeps))]


def cluster_at(base: Cluster, point: Point) -> Cluster:
    """Return the cluster of one point; what is not in the point is as in `base`.

    Instances beyond those of `base` are as its first, second, … again. Events keep their seconds whatever the rate.
    """
    cluster = base
    for name, value in point.items():
        try:
            cluster = PARAMETERS[name].apply(cluster, value)
        except ConfigError as error:
            raise ConfigError(f"--sweep {name}={value:g}: {error}") from error
    return cluster
