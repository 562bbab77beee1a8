"""The command `headline`."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestar.pipeline.console import Home, Json, Seed, emit, progress_bar, say_first_use

if TYPE_CHECKING:
    from lodestar.pipeline.headline.plan import Effort

__all__ = ["headline"]


def headline(
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Runs of each policy; each draws other traffic.")] = 5,
    requests: Annotated[int, typer.Option("--requests", min=400, help="Of one run.")] = 8000,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Settings tried for each heuristic in each cell; 1: its defaults.")
    ] = 20,
    quick: Annotated[bool, typer.Option("--quick", help="4 cells of 1,200 requests, 2 seeds: about a minute.")] = False,
    conversation: Annotated[
        Path | None,
        typer.Option(
            "--conversation", help="File of the Mooncake conversation trace; without it the preset sessions stands in."
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published/--no-published", help="Whether to run the paper's own loop too.")
    ] = True,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes.", show_default="as many as cores")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Directory to write the page, picture and tables to.")] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Replay the paper's evaluation: learning policies against all others, on its workloads, fleets and loads."""
    say_first_use()
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.headline.document import document_of, write_document
    from lodestar.pipeline.headline.plan import plan
    from lodestar.pipeline.headline.plan import quick as few
    from lodestar.pipeline.headline.study import study
    from lodestar.reports.headline_log import log_headline
    from lodestar.reports.headline_tables import headline_tables

    began = time.perf_counter()
    effort = replace(_effort(seeds, requests, trials, quick, conversation, published), first_seed=seed)
    specs = list((few if quick else plan)(conversation is not None))
    with progress_bar("headline", len(specs)) as update:
        results = study(specs, effort, workers, lambda result: update(1, what=f"headline {result.spec.workload}"))
    cpu_s = sum(result.cpu_s for result in results)
    sys.stderr.write(f"{time.perf_counter() - began:.0f} s, {cpu_s:.0f} s of CPU\n")
    document: dict[str, Any] = dict(document_of(results, effort, _command(effort, quick)))
    if to is not None:
        document["files"] = write_document(document, to)
    document["run_id"] = log_headline(Workspace.open(home), document)
    emit(as_json, document, lambda: headline_tables(document))


def _effort(seeds: int, requests: int, trials: int, quick: bool, conversation: Path | None, published: bool) -> Effort:
    from lodestar.data.errors import DataError
    from lodestar.pipeline.headline.plan import Effort

    if conversation is not None and not conversation.is_file():
        raise DataError(f"--conversation {conversation}: no such file; expected the Mooncake trace. Check the path")
    if quick:
        return Effort(1200, 2, min(trials, 3), 1, 200, 1 if published else 0, 1 if published else 0, conversation)
    whole = Effort(requests, seeds, trials, conversation=conversation)
    return whole if published else replace(whole, published_seeds=0, readme_seeds=0)


def _command(effort: Effort, quick: bool) -> str:
    """Write the command that makes this document again."""
    words = ["lodestar headline"]
    if quick:
        words.append("--quick")
    elif (effort.seeds, effort.requests) != (5, 8000):
        words.append(f"--seeds {effort.seeds} --requests {effort.requests}")
    if effort.trials != 20 and not quick:
        words.append(f"--trials {effort.trials}")
    if effort.first_seed:
        words.append(f"--seed {effort.first_seed}")
    if effort.conversation:
        words.append(f"--conversation {effort.conversation.name}")
    return " ".join(words + ([] if effort.published_seeds else ["--no-published"]))
