"""The command `validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.pipeline.console import Home, Json, Seed, emit, progress_bar, say_first_use

__all__ = ["validate"]


def validate(
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            help="queueing, load-balancing, own-logs, measured-arms or coverage; again for more.",
            show_default="all",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller worlds and fewer repetitions: minutes.")] = False,
    traces: Annotated[
        Path | None,
        typer.Option(
            "--traces",
            help="Folder with the logs of measured-arms, such as lodestar/sharing09/random.csv.gz.",
            show_default="LODESTAR_TRACES",
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Directory to write page, picture and numbers to.")] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Score every estimator and the replay where the truth is known, and on measured arms of real clusters."""
    say_first_use()
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.validation.validate import Effort, write_document
    from lodestar.pipeline.validation.validate import validate as run
    from lodestar.reports.validation_log import log_validation
    from lodestar.reports.validation_page import validation_tables

    words = ["lodestar validate", *(["--quick"] if quick else []), *(f"--part {each}" for each in part or ())]
    words += [f"--seed {seed}"] if seed else []
    words += [f"--traces {traces}"] if traces else []
    with progress_bar("validate") as update:
        document = run(
            part,
            Effort.quick() if quick else Effort(),
            traces,
            seed,
            " ".join(words),
            lambda what, done, of: update(done=done, of=of or None, what=f"validate: {what}"),
        )
    if to is not None:
        document["files"] = write_document(document, to)
    document["run_id"] = log_validation(Workspace.open(home), document)
    emit(as_json, document, lambda: validation_tables(document))
