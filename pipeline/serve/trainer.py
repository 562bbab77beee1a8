"""Learning in a process of its own: rows come in, artifacts go out, which the server loads like any other.

The pools are kept and thinned here too. In the server, a thread that does so would hold the interpreter against
decisions: each of them would wait a little at every call that lets other threads run.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from lodestar.data.schema import TTFT_MS
from lodestar.models.latency import LatencyModel
from lodestar.models.online.finished import Finished
from lodestar.models.online.learner import Learner, train_models
from lodestar.models.shipping.write import ranges_of, write_artifact
from lodestar.pipeline.online.settings import OnlineSettings
from lodestar.pipeline.serve.comparison import no_better
from lodestar.pipeline.serve.frames import FORGET, ROWS, SERVES, job_of, read_frame, rows_of

__all__ = ["ARTIFACT", "Trainer"]

ARTIFACT: Final = "artifact"


@dataclass(slots=True)
class Trainer:
    """Takes frames, and answers each with one line of JSON.

    An answer has 'rows' (that are kept); 'why' a refit was due, if it was, with 'directory' (the job's, with the
    artifact in it), 'kept' (why what serves should stay) or 'failed' (why there is no model).

    Attributes:
        state: directory for the jobs.
        job: what serves, and by what settings to learn.
        learner: the pools.
    """

    state: Path
    job: dict[str, Any] = field(default_factory=dict)
    learner: Learner = field(default_factory=Learner)

    def answer(self, frames: BinaryIO, answers: TextIO) -> None:
        """Go on until the server has gone."""
        while (found := read_frame(frames)) is not None:
            json.dump(self.take(*found, time.time()), answers)
            answers.write("\n")
            answers.flush()

    def take(self, kind: bytes, content: bytes, now_s: float) -> dict[str, Any]:
        """Take a frame; return the answer."""
        told: dict[str, Any] = {}
        if kind == SERVES:
            self._serves(job_of(content))
        elif kind == FORGET:
            self.learner = Learner(self.learner.settings, self.learner.kinds)
        elif kind == ROWS:
            rows, predicted_ms = rows_of(content)
            self.learner.add(rows, predicted_ms)
            why = self.learner.due(now_s)
            told = {} if why is None else {"why": why} | self._refit(now_s)
        return {"rows": len(self.learner.recent) + len(self.learner.diverse), **told}

    def _serves(self, job: dict[str, Any]) -> None:
        self.job = job
        settings = replace(OnlineSettings.from_dict(job["policy"]["settings"]).learner, refit_s=job["refit_s"])
        self.learner.settings, self.learner.kinds = settings, tuple(job["kinds"])

    def _refit(self, now_s: float) -> dict[str, Any]:
        """Train on all rows, where models of the older ones predict the newest better than what serves."""
        rows, seed = self.learner.training_rows(now_s), self.job["seed"]
        try:
            why = None if self.job["incumbent"] is None else no_better(rows, self.job["incumbent"], seed)
            if why is not None:
                return {"kept": why}
            models = train_models(rows, seed=seed, heads=True)
            if TTFT_MS not in models:
                return {"failed": f"{len(rows)} rows are too few for a {TTFT_MS} model"}
            directory = self.state / f"refit-{now_s:.3f}"
            write(directory / ARTIFACT, rows, models, self.job["policy"])
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            return {"failed": f"{type(error).__name__}: {error}"}
        return {"directory": str(directory)}


def write(to: Path, rows: Finished, models: Mapping[str, LatencyModel], policy: Mapping[str, Any]) -> None:
    """Write the models of these rows as an artifact, whole or not at all."""
    record = {"feature_ranges": ranges_of(*rows.ranges()), "rows": len(rows)}
    made = to.with_name(f"{to.name}.part")
    made.mkdir(parents=True)
    newest_s = float(rows.finished_at_s.max())
    write_artifact(
        made, models, records=dict.fromkeys(models, record), dataset="online", policy=policy, trained_at_s=newest_s
    )
    made.rename(to)
