"""What the workload commands do around the workload: find recipes and sources, write files, tell what came out."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import RenderableType

from lodestar.data.errors import ConfigError
from lodestar.data.ingest import ingest
from lodestar.data.log import Workload
from lodestar.data.store import dataset_names, open_store
from lodestar.data.workloads.load import load_workload, loader
from lodestar.data.workloads.measure import facts
from lodestar.data.workloads.presets import preset_names, preset_text
from lodestar.data.workloads.recipe import read_recipe, recipe_of, with_rate, with_settings
from lodestar.data.workloads.simulate import simulate
from lodestar.data.workloads.transforms import shift_rate, slice_rows, slice_time, switch
from lodestar.data.workloads.write import check_target, write_workload
from lodestar.data.workspace import Workspace
from lodestar.reports.numbers import number, percent
from lodestar.reports.tables import sentences

__all__ = [
    "Job", "changed", "points_of", "preset_rows", "require_recipe", "shifted", "simulated", "slicer", "with_other",
    "workload_tables",
]  # fmt: skip

SAID: Final[dict[str, tuple[str, Callable[[Any], str]]]] = {
    "requests": ("requests", number),
    "span_s": ("span", lambda value: f"{number(value, 1)} s"),
    "rate_per_s": ("rate", lambda value: f"{number(value, 3)} requests/s"),
    "prompt_tokens_mean": ("prompt mean", lambda value: f"{number(value, 1)} tokens"),
    "output_tokens_mean": ("output mean", lambda value: f"{number(value, 1)} tokens"),
    "block_tokens": ("block", lambda value: f"{number(value)} tokens"),
    "shared_ratio": ("shared", lambda value: f"{percent(value)} % of prompt tokens, with another request"),
    "seen_before_ratio": ("seen before", lambda value: f"{percent(value)} % of prompt tokens, in an earlier request"),
    "file": ("file", str),
    "format": ("format", str),
    "dataset": ("dataset", lambda value: value or "not ingested"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """What every command is told: where to look, where to write, and the seed; what cannot be written is refused here.

    Attributes:
        workspace: whose datasets can be sources, and where the file is ingested.
        seed: of all that is drawn.
        path: the file to write.
        format: native or mooncake.
        dataset: name to ingest the file under, if any; a new one, for requests of two workloads have the same ids.
    """

    workspace: Workspace
    seed: int
    path: Path
    format: str
    dataset: str | None

    def __post_init__(self) -> None:
        check_target(self.path, self.format)
        if self.dataset is None or not self.workspace.database.exists():
            return
        with open_store(self.workspace) as con:
            if self.dataset in dataset_names(con):
                raise ConfigError(
                    f"dataset {self.dataset!r} is there already; expected a new name. Choose another --dataset"
                )


def preset_rows() -> list[dict[str, Any]]:
    """Return each preset with its description.

    >>> preset_rows()[0]["preset"]
    'agents'
    """
    told = {name: tomllib.loads(preset_text(name))["description"] for name in preset_names()}
    return [{"preset": name, "description": description} for name, description in told.items()]


def simulated(
    job: Job, recipe: str, settings: Sequence[str], requests: int | None, rate_per_s: float | None
) -> dict[str, Any]:
    """Make the workload of a preset or a recipe file, write it, and tell what it is."""
    table = read_recipe(Path(recipe)) if recipe.endswith(".toml") else tomllib.loads(preset_text(recipe))
    table = with_settings(table, [*settings, *([] if requests is None else [f"requests={requests}"])])
    try:
        known = recipe_of(table if rate_per_s is None else with_rate(table, rate_per_s))
    except ConfigError as error:
        raise ConfigError(f"{recipe}: {error}") from error
    return _written(job, simulate(known, job.seed, loader(job.workspace, job.seed)))


def changed(job: Job, source: str, change: Callable[[Workload], Workload]) -> dict[str, Any]:
    """Load a workload, change it, write it, and tell what it is."""
    return _written(job, change(load_workload(job.workspace, source, job.seed)))


def with_other(
    job: Job, sources: tuple[str, str], combine: Callable[[Workload, Workload], Workload], own_ids: bool
) -> dict[str, Any]:
    """Load two workloads, with the block ids that their logs give or each with its own, combine them, and tell."""
    one, other = (load_workload(job.workspace, source, job.seed, own_ids) for source in sources)
    return _written(job, combine(one, other))


def shifted(
    job: Job, sources: tuple[str, str | None], at_s: float, factor: float | None, share_blocks: bool
) -> dict[str, Any]:
    """Shift to another workload or to another rate, whichever is given."""
    source, other = sources
    if other is not None and factor is None:
        return with_other(job, (source, other), lambda a, b: switch(a, b, at_s, share_blocks), share_blocks)
    if factor is None or other is not None:
        given = "neither" if factor is None else "both"
        raise ConfigError(f"shift has {given} of SOURCE2 and --factor; expected one of them. Say what is to change")
    return changed(job, source, lambda workload: shift_rate(workload, at_s, factor))


def slicer(
    from_s: float | None, to_s: float | None, first: int | None, requests: int | None
) -> Callable[[Workload], Workload]:
    """Return the slice by time or by count, whichever is given."""
    by_time, by_count = from_s is not None or to_s is not None, first is not None or requests is not None
    if by_time == by_count:
        raise ConfigError(
            f"slice is asked for by {'both' if by_time else 'neither'} time and count; expected one of them. "
            "Give --from-s and --to-s, or --first and --requests"
        )
    if by_time:
        return lambda workload: slice_time(workload, from_s or 0.0, float("inf") if to_s is None else to_s)
    return lambda workload: slice_rows(workload, first or 0, requests)


def require_recipe(recipe: str | None, to: Path | None) -> tuple[str, Path]:
    """Return both, or say what is lacking."""
    if recipe is None or to is None:
        lacking = "RECIPE" if recipe is None else "--to"
        raise ConfigError(
            f"simulate lacks {lacking}; expected RECIPE and --to FILE. Choose a preset from lodestar simulate --list"
        )
    return recipe, to


def points_of(texts: Sequence[str]) -> list[tuple[float, float]]:
    """Read ``FROM:TO`` points.

    >>> points_of(["0:0", "60:30.5"])
    [(0.0, 0.0), (60.0, 30.5)]
    """
    points = []
    for text in texts:
        before, _, after = text.partition(":")
        try:
            points.append((float(before), float(after)))
        except ValueError as error:
            raise ConfigError(
                f"--point {text!r} is no point; expected FROM:TO in seconds, such as 60:30. Write it so"
            ) from error
    return points


def workload_tables(document: dict[str, Any]) -> RenderableType:
    """Draw what came out."""
    told = {title: say(document[key]) for key, (title, say) in SAID.items()}
    told |= {"note": "; ".join(document["notes"])} if document["notes"] else {}
    told |= {f"{what} inferred": how for what, how in document["inferred"].items()}
    return sentences("Workload", told)


def _written(job: Job, workload: Workload) -> dict[str, Any]:
    notes = write_workload(job.path, workload, job.format)
    if job.dataset is not None:
        ingest(job.workspace, [job.path], job.dataset)
    return {
        **facts(workload),
        "file": str(job.path),
        "format": job.format,
        "dataset": job.dataset,
        "notes": list(notes),
        "inferred": workload.inferred,
    }
