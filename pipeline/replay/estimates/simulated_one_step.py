"""What the simulated engines would give every candidate of every logged decision, from the states of the log.

The logged choices are replayed, and before each decision the engine of every candidate runs ahead with the request
until its first token, and is put back as it was: one step, logged states.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.pipeline.replay.calibration.forced import known_choices
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policies.oracle_ttft import OracleTtft

__all__ = ["MOST_REQUESTS", "simulated_ttft_ms"]

Floats = NDArray[np.float64]

#: Looking ahead copies the books of all requests for each candidate of each of them: the time grows with the square.
MOST_REQUESTS: Final = 20_000


def simulated_ttft_ms(log: RequestLog, cluster: Cluster) -> Floats:
    """Return the TTFT that each instance would give each request, shape (n, m), in ms, without noise.

    What comes after a request is not in it: a later prompt that joins the same batch makes the real TTFT longer. NaN
    where an engine would never answer, and where the log shows no candidates it is told all the same.

    Args:
        log: what was logged, in the rows of the cluster's workload; a choice that is not logged goes to the instances
            in turn.
        cluster: as many calibrated instances as the log has, in its order.

    Raises:
        DataError: more than `MOST_REQUESTS` requests, or another number of instances or requests than the log has.
    """
    if len(log) > MOST_REQUESTS:
        raise DataError(
            f"{len(log)} requests are too many to look ahead for each; expected {MOST_REQUESTS} or fewer. Ingest a part"
        )
    if len(cluster.workload) != len(log) or len(cluster.engines) != len(log.instances):
        raise DataError(
            f"the cluster has {len(cluster.engines)} instances and {len(cluster.workload)} requests; expected the "
            f"log's {len(log.instances)} and {len(log)}"
        )
    quiet = cluster.with_engines([replace(engine, noise_ratio=0.0) for engine in cluster.engines])
    costs = quiet.replay(OracleTtft(), forced=known_choices(log), record=True, always=True).costs
    return np.where(np.isfinite(costs), costs, np.nan)
