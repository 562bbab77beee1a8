"""A cluster as it is described: its instances, what the router sees of them, what happens to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Final

from lodestar.data.errors import ConfigError, unknown
from lodestar.models.engine import EngineModel, presets
from lodestar.pipeline.replay.events import ON_FAILURE, Event
from lodestar.pipeline.replay.view import RouterView

__all__ = ["FITTED", "ClusterSpec", "InstanceSpec"]

#: The engine of an instance that names no preset: what was fitted to the dataset's log, or what stands in for it.
FITTED: Final = "fitted"
#: Loose enough that no setting beside it contradicts them.
_ANY_ENGINE: Final = EngineModel(max_batched_tokens=1 << 40, max_sequences=1)


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """Instances that are alike.

    Attributes:
        count: how many.
        engine: a preset's name, or 'fitted'.
        slowed: every step takes so many times as long, after all other settings.
        settings: what differs from the engine, by field of `EngineModel`.
        where: what to call it in errors.
    """

    count: int = 1
    engine: str = FITTED
    slowed: float = 1.0
    settings: tuple[tuple[str, float | int | bool | str], ...] = ()
    where: str = field(default="[[instance]]", compare=False)

    def __post_init__(self) -> None:
        """Refuse what can be told without the fitted engine."""
        if self.count < 1 or not self.slowed > 0:
            raise ConfigError(
                f"{self.where} has count {self.count} and slowed {self.slowed:g}; expected 1 or more, and more than 0. "
                "Change it"
            )
        self.of(_ANY_ENGINE)

    def of(self, fitted: EngineModel) -> EngineModel:
        """Return the engine, where 'fitted' stands for the one given.

        >>> InstanceSpec(slowed=2.0, settings=(("decode_base_ms", 5.0),)).of(EngineModel()).decode_base_ms
        10.0
        """
        try:
            engine = fitted if self.engine == FITTED else EngineModel.preset(self.engine)
            settings: dict[str, Any] = dict(self.settings)
            return replace(engine, **settings).slowed(self.slowed)
        except ConfigError as error:
            hint = "" if self.engine in (FITTED, *presets()) else f"; {FITTED!r} takes the log's own"
            raise ConfigError(f"{self.where}: {error}{hint}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the table as a file has it."""
        return {"count": self.count, "engine": self.engine, "slowed": self.slowed, **dict(self.settings)}


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What is said of a cluster; what is not said comes from the log.

    Attributes:
        instances: in the order of their index; none: as many as the log has, all fitted.
        events: what happens to them.
        on_failure: whether a failed instance's requests are sent again ('retry') or not ('lose').
        view: what the router sees; None: the replay's default.
        where: what to call it in errors.
    """

    instances: tuple[InstanceSpec, ...] = ()
    events: tuple[Event, ...] = ()
    on_failure: str = ON_FAILURE[0]
    view: RouterView | None = None
    where: str = field(default="cluster", compare=False)

    def __post_init__(self) -> None:
        """Refuse what no cluster can be."""
        if self.on_failure not in ON_FAILURE:
            raise ConfigError(f"{self.where}: {unknown('on_failure', self.on_failure, ON_FAILURE)}")
        beyond = [event for event in self.events if self.size is not None and event.instance >= self.size]
        if beyond:
            raise ConfigError(
                f"{self.where}: event {beyond[0]} names instance {beyond[0].instance}; expected less than {self.size}, "
                "for so many there are, counted from 0. Correct it"
            )

    @property
    def size(self) -> int | None:
        """How many instances it names; None if it names none."""
        return sum(spec.count for spec in self.instances) or None

    @classmethod
    def of(
        cls, engines: Sequence[EngineModel], view: RouterView, events: Sequence[Event] = (), on_failure: str = "retry"
    ) -> ClusterSpec:
        """Write a cluster out: every setting of every instance, so that nothing is left to a log.

        >>> ClusterSpec.of([EngineModel()] * 3, RouterView()).to_dict()["instance"][0]["count"]
        3
        """
        alike = [(len(list(same)), engine) for engine, same in groupby(engines)]
        instances = tuple(InstanceSpec(count, settings=tuple(engine.to_dict().items())) for count, engine in alike)
        return cls(instances, tuple(events), on_failure, view)

    def engines(self, fitted: Sequence[EngineModel], instances: int) -> list[EngineModel]:
        """Return the engine of each instance.

        Args:
            fitted: what 'fitted' means: one engine for all, or one for each instance of the log. Where there are more
                instances than these, they are taken again in turn.
            instances: how many; the same as in the file, where that names any.

        >>> spec = ClusterSpec((InstanceSpec(count=2), InstanceSpec(slowed=3.0)))
        >>> [round(engine.decode_base_ms, 3) for engine in spec.engines([EngineModel()], 3)]
        [6.345, 6.345, 19.035]
        """
        if self.size not in (None, instances):
            raise ConfigError(
                f"{self.where} names {self.size} instances, and {instances} are asked for; expected the same. "
                "Leave --instances out, or change a count"
            )
        specs = [spec for spec in self.instances for _ in range(spec.count)] or [InstanceSpec()] * instances
        return [spec.of(fitted[j % len(fitted)]) for j, spec in enumerate(specs)]

    def to_dict(self) -> dict[str, Any]:
        """Return the tables as a file has them; `cluster_spec` reads them back."""
        written: dict[str, Any] = {"on_failure": self.on_failure}
        if self.instances:
            written["instance"] = [spec.to_dict() for spec in self.instances]
        if self.events:
            written["event"] = [_event_table(event) for event in self.events]
        return written if self.view is None else {**written, "view": self.view.to_dict()}


def _event_table(event: Event) -> dict[str, Any]:
    return {"at_s": event.at_s, "kind": event.kind, "instance": event.instance, "factor": event.factor}
