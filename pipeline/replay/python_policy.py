"""A user's own policy in plain Python: one class with one method, named as FILE.py:CLASS.

The cluster asks it once a decision, so a policy that thinks for ten microseconds replays some 50,000 requests a second;
a compiled one needs a file in `policies/`. It chooses and says nothing of probabilities: what it decides has no
propensity, and no one-step estimate.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field, replace
from operator import index
from pathlib import Path
from typing import ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload

__all__ = ["SIGNATURE", "Chooser", "PythonPolicy", "RequestSeen", "SnapshotSeen", "place_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
#: What a user writes.
SIGNATURE: Final = "choose(self, request, snapshot, rng) -> int"


class RequestSeen:
    """What a router knows of the request that it decides on; one object for all decisions of a run.

    Attributes:
        index: its place in the workload, from 0.
        prompt_tokens: length of its prompt.
        arrived_at_s: seconds from the first arrival.
    """

    __slots__ = ("_block_ids", "_block_offsets", "arrived_at_s", "index", "prompt_tokens")

    def __init__(self, workload: Workload) -> None:
        self._block_ids, self._block_offsets = workload.block_ids, workload.block_offsets
        self.index, self.prompt_tokens, self.arrived_at_s = -1, 0, 0.0

    @property
    def blocks(self) -> Ints:
        """Ids of its prefix blocks: equal id, equal prompt up to and including this block."""
        return self._block_ids[self._block_offsets[self.index] : self._block_offsets[self.index + 1]]


class SnapshotSeen:
    """What the router knows of every instance: one vector for each field of a snapshot, by its name.

    The vectors are views that the cluster fills anew before each decision: copy what is to be kept. An instance that
    is no candidate has NaN everywhere.
    """

    __slots__ = ("_there", *schema.SNAPSHOT_FIELDS)

    hit_ratio: Floats
    inflight_requests: Floats
    running_requests: Floats
    waiting_requests: Floats
    kv_usage_ratio: Floats
    inflight_prefill_requests: Floats
    inflight_decode_requests: Floats
    prefill_tokens: Floats
    decode_tokens: Floats
    last_access_age_s: Floats

    def __init__(self, buffer: Floats) -> None:
        view = buffer.view()
        view.flags.writeable = False
        for k, name in enumerate(schema.SNAPSHOT_FIELDS):
            setattr(self, name, view[:, k])
        # The gateway counts its own requests in flight, so that every candidate has a number here.
        self._there = view[:, _INFLIGHT]

    @property
    def candidates(self) -> Ints:
        """Indices of the instances that can be chosen, ascending.

        >>> SnapshotSeen(np.array([[0.0] * 10, [np.nan] * 10, [1.0] * 10])).candidates.tolist()
        [0, 2]
        """
        return np.flatnonzero(self._there == self._there)

    def has(self, j: int) -> bool:
        """Say whether instance j can be chosen."""
        return 0 <= j < len(self._there) and self._there.item(j) == self._there.item(j)


class Chooser(Protocol):
    """The class that a user writes. It is made anew, without arguments, for each run, and may keep what it likes."""

    def choose(self, request: RequestSeen, snapshot: SnapshotSeen, rng: np.random.Generator) -> int:
        """Return the index of the instance for this request, one of `snapshot.candidates`."""


@dataclass(slots=True)
class _Run:
    """What a policy has at hand during a run."""

    chooser: Chooser
    request: RequestSeen
    snapshot: SnapshotSeen
    rng: np.random.Generator
    prompt_tokens: list[int]
    arrived_at_s: list[float]


@dataclass(slots=True)
class PythonPolicy:
    """A user's class, as the cluster asks it: `start` once a run, then `decide` once a decision.

    Attributes:
        name: file and class.
        file: as named.
        chooser: the class.
    """

    name: str
    file: Path
    chooser: type[Chooser]
    _run: _Run | None = field(default=None, init=False, repr=False)

    #: Snapshot fields without which it can't decide: its own affair.
    fields: ClassVar[tuple[str, ...]] = ()

    def fresh(self) -> PythonPolicy:
        """Return the same policy without what a run left in it, so that runs can go on beside each other."""
        return replace(self)

    def start(self, workload: Workload, snapshot: Floats, seed: int) -> None:
        """Begin a run with a new object of the user's class.

        Args:
            workload: what will be decided on.
            snapshot: what the router sees, shape (m, fields), filled by the caller before each decision.
            seed: of the numbers that the policy draws.
        """
        try:
            chooser = self.chooser()
        except Exception as error:
            raise self._failed(error, "making it") from error
        self._run = _Run(
            chooser,
            RequestSeen(workload),
            SnapshotSeen(snapshot),
            # A stream of its own: the engines' noise comes from the seed itself.
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,))),
            workload.prompt_tokens.tolist(),
            workload.arrived_at_s.tolist(),
        )

    def decide(self, i: int) -> int:
        """Return the instance for request i, seen in the snapshot that `start` was given."""
        run = self._run
        assert run is not None, "start comes first"
        request, snapshot = run.request, run.snapshot
        request.index = i
        request.prompt_tokens = run.prompt_tokens[i]
        request.arrived_at_s = run.arrived_at_s[i]
        try:
            chosen = index(run.chooser.choose(request, snapshot, run.rng))
        except Exception as error:
            raise self._failed(error, f"choosing for request {i}") from error
        if not snapshot.has(chosen):
            raise ConfigError(
                f"--policy {self.name}: choose returned {chosen} for request {i}; expected one of the candidates "
                f"{', '.join(map(str, snapshot.candidates))}. Choose among snapshot.candidates"
            )
        return chosen

    def _failed(self, error: Exception, doing: str) -> ConfigError:
        said = f"{type(error).__name__}: {error}"
        return ConfigError(f"{place_of(error, self.file)}: {said}, {doing}; expected {SIGNATURE}. Correct the policy")


def place_of(error: Exception, file: Path) -> str:
    """Return the deepest line of a user's file on the way to an error, as FILE:LINE."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{file}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file.resolve()]
    return f"{file}:{lines[-1]}" if lines else str(file)
