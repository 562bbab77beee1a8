"""A user's own policy in plain Python: one class with one method, named as FILE.py:CLASS or by an entry point.

It is asked once a decision, and what it thinks for is added to the replay's own time. It chooses, and may say how
likely it was to choose each instance: then its decisions have propensities, and logged decisions can be scored by it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import index
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.pipeline.replay.seen import RequestSeen, SnapshotSeen

__all__ = ["SIGNATURE", "Chooser", "PythonPolicy", "place_of"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: What a user writes.
SIGNATURE: Final = "choose(self, request, snapshot, state, rng) -> int, or (int, probabilities)"
_SUM_ERROR: Final = 1e-6


class Chooser(Protocol):
    """The class that a user writes; it is made anew for each run, with the settings that are given."""

    def choose(
        self, request: RequestSeen, snapshot: SnapshotSeen, state: dict[Any, Any], rng: np.random.Generator
    ) -> int | tuple[int, ArrayLike]:
        """Return the index of the instance for this request, one of `snapshot.candidates`.

        Or return the pair of it and the probability of every instance, candidate or not. `state` is empty at the
        beginning of each run; the policy keeps there what it likes.
        """


@dataclass(slots=True)
class _Run:
    """What a policy has at hand during a run."""

    chooser: Chooser
    request: RequestSeen
    snapshot: SnapshotSeen
    state: dict[Any, Any]
    rng: np.random.Generator
    prompt_tokens: list[int]
    arrived_at_s: list[float]
    clock_s: Floats | None


@dataclass(slots=True)
class PythonPolicy:
    """A user's class, as the cluster asks it: `start` once a run, then `decide` once a decision.

    Attributes:
        name: file and class.
        file: where it stands.
        chooser: the class.
        settings: what it is made with, by name.
        probability: of every instance at the last decision, shape (m,), as the policy told it; NaN where it did not.
    """

    name: str
    file: Path
    chooser: type[Chooser]
    settings: dict[str, Any] = field(default_factory=dict)
    probability: Floats = field(default_factory=lambda: np.zeros(0), init=False, repr=False, compare=False)
    _run: _Run | None = field(default=None, init=False, repr=False)
    _told: bool = field(default=False, init=False, repr=False)

    #: Snapshot fields without which it can't decide: its own affair.
    fields: ClassVar[tuple[str, ...]] = ()

    def fresh(self) -> PythonPolicy:
        """Return the same policy without what a run left in it, so that runs can go on beside each other."""
        return replace(self)

    @property
    def remembers(self) -> bool:
        """Say whether the class keeps anything of this run, in `state` or in itself."""
        run = self._run
        return run is not None and bool(run.state or set(getattr(run.chooser, "__dict__", ())) - set(self.settings))

    def start(
        self,
        workload: Workload,
        snapshot: Floats,
        seed: int,
        clock_s: Floats | None = None,
        candidate: Bools | None = None,
    ) -> None:
        """Begin a run with a new object of the user's class and an empty state.

        Args:
            workload: what will be decided on.
            snapshot: what the router sees, shape (m, fields), filled by the caller before each decision.
            seed: of the numbers that the policy draws.
            clock_s: the time, shape (1,), set by the caller before each decision; None: a request's arrival.
            candidate: who can be chosen, shape (m,), likewise; None: who has a count of requests in flight.
        """
        make: Callable[..., Chooser] = self.chooser
        try:
            chooser = make(**self.settings)
        except Exception as error:
            raise self._failed(error, "making it") from error
        self._run = _Run(
            chooser,
            RequestSeen(workload),
            SnapshotSeen(snapshot, candidate),
            {},
            # A stream of its own: the engines' noise comes from the seed itself.
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,))),
            workload.prompt_tokens.tolist(),
            workload.arrived_at_s.tolist(),
            clock_s,
        )
        self.probability, self._told = np.full(len(snapshot), np.nan), False

    def decide(self, i: int) -> int:
        """Return the instance for request i, seen in the snapshot that `start` was given; see also `probability`."""
        run = self._run
        assert run is not None, "start comes first"
        request, snapshot = run.request, run.snapshot
        request.index = i
        request.prompt_tokens = run.prompt_tokens[i]
        request.now_s = run.arrived_at_s[i] if run.clock_s is None else run.clock_s.item(0)
        told: ArrayLike | None = None
        try:
            answer = run.chooser.choose(request, snapshot, run.state, run.rng)
            if isinstance(answer, tuple):
                answer, told = answer
            if isinstance(answer, bool):
                raise TypeError(f"{answer} is no index of an instance")
            chosen = index(answer)
        except Exception as error:
            raise self._failed(error, f"choosing for request {i}") from error
        if not snapshot.has(chosen):
            raise ConfigError(
                f"--policy {self.name}: choose returned {chosen} for request {i}; expected one of the candidates "
                f"{', '.join(map(str, snapshot.candidates))}. Choose among snapshot.candidates"
            )
        if told is not None or self._told:
            self._take_down(i, chosen, told, snapshot)
        return chosen

    def _take_down(self, i: int, chosen: int, told: ArrayLike | None, snapshot: SnapshotSeen) -> None:
        """Keep what was told of probabilities, once it is checked, or that nothing was."""
        self._told = told is not None
        if told is None:
            self.probability[:] = np.nan
            return
        try:
            probability = np.asarray(told, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self._failed(error, f"reading its probabilities for request {i}") from error
        wrong = _wrong_with(probability, chosen, len(self.probability), snapshot)
        if wrong:
            raise ConfigError(f"--policy {self.name}: for request {i}, choose gave {wrong}. Correct the policy")
        self.probability[:] = probability

    def _failed(self, error: Exception, doing: str) -> ConfigError:
        said = f"{type(error).__name__}: {error}"
        return ConfigError(f"{place_of(error, self.file)}: {said}, {doing}; expected {SIGNATURE}. Correct the policy")


def _wrong_with(probability: Floats, chosen: int, instances: int, snapshot: SnapshotSeen) -> str | None:
    """Say what is wrong with probabilities, and what was expected instead."""
    if probability.shape != (instances,):
        return f"probabilities of shape {probability.shape}; expected ({instances},), one for each instance"
    if not (probability >= 0.0).all():  # NaN fails here too
        j = int(np.flatnonzero(~(probability >= 0.0))[0])
        return f"instance {j} the probability {probability[j]:g}; expected 0 or more"
    total = float(probability.sum())
    if not abs(total - 1.0) <= _SUM_ERROR:
        return f"probabilities that sum to {total:.9g}; expected 1"
    for j in np.flatnonzero(probability).tolist():
        if not snapshot.has(j):
            return f"instance {j} the probability {probability[j]:g}, and it is no candidate; expected 0"
    if not probability[chosen] > 0.0:
        return f"instance {chosen} the probability 0, and returned it; expected more than 0"
    return None


def place_of(error: Exception, file: Path) -> str:
    """Return the deepest line of a user's file on the way to an error, as FILE:LINE."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{file}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file.resolve()]
    return f"{file}:{lines[-1]}" if lines else str(file)
