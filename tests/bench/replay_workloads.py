"""What the replay benchmarks run on: real logs where they are at hand, and generated requests of the same shape."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lodestar.data.ingest import ingest
from lodestar.data.log import Floats, Ints, Workload
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.data.store import load_log, open_store
from lodestar.data.workloads.load import load_workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.calibrate import calibrate
from lodestar.pipeline.replay.cluster import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import traces_folder

__all__ = ["PRESET", "mooncake", "poisson", "sharing09"]

#: The engine of every generated workload.
PRESET = "h100-llama-3.1-8b"
PROMPT_MEAN, PROMPT_MOST, OUTPUT_MEAN = 954.0, 3000.0, 188.0
SHARED_RATIO, PREFIXES = 0.27, 40


def poisson(requests: int, rate_per_s: float, block_tokens: int = 64, seed: int = 0) -> Workload:
    """Make Poisson arrivals with lognormal prompts, a part of whose tokens lie in 40 prefixes of Zipf's popularity."""
    rng = np.random.default_rng(seed)
    arrived_at_s = np.cumsum(rng.exponential(1 / rate_per_s, requests))
    prompt = _scaled(rng.lognormal(0.0, 0.7, requests), PROMPT_MEAN, PROMPT_MOST)
    output = _scaled(rng.lognormal(0.0, 0.7, requests), OUTPUT_MEAN, np.inf)
    popularity = 1 / np.arange(1, PREFIXES + 1)
    group = rng.choice(PREFIXES, requests, p=popularity / popularity.sum())
    whole = prompt // block_tokens
    length = rng.permutation(np.linspace(0.5, 1.5, PREFIXES))
    shared = _shared_blocks(length[group], whole, SHARED_RATIO * prompt.sum() / block_tokens)
    return Workload(arrived_at_s, prompt, output, *_blocks(group, shared, whole), block_tokens)


def _scaled(drawn: Floats, mean: float, most: float) -> Ints:
    """Scale values so that, cut at the most, they have the mean; whole and at least 1."""
    scale = _root(lambda factor: float(np.clip(drawn * factor, 1, most).mean()) - mean, most=1e6)
    return np.rint(np.clip(drawn * scale, 1, most)).astype(np.int64)


def _shared_blocks(length: Floats, whole: Ints, wanted: float) -> Ints:
    """Cut prefixes of these relative lengths to the prompts, so that `wanted` blocks are shared altogether."""

    def cut(scale: float) -> Ints:
        return np.minimum(np.rint(length * scale).astype(np.int64), whole)

    return cut(_root(lambda scale: float(cut(scale).sum()) - wanted, most=1e6))


def _root(rising: Callable[[float], float], most: float) -> float:
    low, high = 0.0, most
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high


def _blocks(group: Ints, shared: Ints, whole: Ints) -> tuple[Ints, Ints]:
    """Name every whole block: the b-th of a prefix is one block for all that share it, the others are their own."""
    longest = np.zeros(PREFIXES, dtype=np.int64)
    np.maximum.at(longest, group, shared)
    first = np.cumsum(longest) - longest
    offsets = np.concatenate([[0], np.cumsum(whole)])
    depth = np.arange(offsets[-1]) - np.repeat(offsets[:-1], whole)
    common = depth < np.repeat(shared, whole)
    ids = np.repeat(first[group], whole) + depth
    ids[~common] = longest.sum() + np.arange((~common).sum())
    return ids, offsets


def mooncake(folder: Path) -> tuple[Path, Workload] | None:
    """Unpack the Mooncake conversation trace; None where it is absent."""
    packed = traces_folder() / "mooncake" / "conversation_trace.jsonl.gz"
    if not packed.exists():
        return None
    path = folder / "mooncake.jsonl"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path, load_workload(Workspace.open(folder / "mooncake"), str(path))


def sharing09() -> Cluster | None:
    """Return the real log's cluster, calibrated from it, or None where the log is absent."""
    path = traces_folder() / "lodestar" / "sharing09" / "random.csv.gz"
    if not path.exists():
        return None
    with TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder))
        ingest(workspace, [path], "s09")
        with open_store(workspace) as con:
            log = load_log(con, "s09")
    workload = workload_of(log)
    return Cluster.of([calibrate(log, workload).engine] * len(log.instances), workload)


def generated(requests: int, rate_per_s: float, instances: int, block_tokens: int = 64) -> Cluster:
    """Put the Poisson workload before instances of the preset."""
    return Cluster.of([EngineModel.preset(PRESET)] * instances, poisson(requests, rate_per_s, block_tokens))
