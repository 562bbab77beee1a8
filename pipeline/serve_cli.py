"""The command `serve`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestar.pipeline.console import Json, Seed, say_first_use

if TYPE_CHECKING:
    from lodestar.pipeline.serve.serving import Serving

__all__ = ["serve"]


def serve(
    artifact: Annotated[
        str | None,
        typer.Argument(help="Directory, .tar or URL that `lodestar ship` wrote; may be left out with --learn."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; needs a token unless loopback.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", help="File with the token that every request must bear.", show_default="LODESTAR_TOKEN"
        ),
    ] = None,
    decision_log: Annotated[
        Path | None, typer.Option("--decision-log", help="Append every decision to this .jsonl, for lodestar ingest.")
    ] = None,
    log_mib: Annotated[float, typer.Option("--log-mib", help="Size at which a new decision log is begun.")] = 256.0,
    learn: Annotated[bool, typer.Option("--learn", help="Train on the outcomes that come in.")] = False,
    refit_s: Annotated[float, typer.Option("--refit-s", help="How often to look whether a refit is due.")] = 30.0,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            help="Where refits put their artifacts; without ARTIFACT, the newest there serves.",
            show_default="temporary",
        ),
    ] = None,
    shadow: Annotated[bool, typer.Option("--shadow", help="Score and log, and leave the choice to the gateway.")] = (
        False
    ),
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="NAME,key=value,…: settings that replace those of the artifact."),
    ] = None,
    watch_s: Annotated[
        float, typer.Option("--watch-s", min=0, help="How often to look for a new version of the artifact; 0: never.")
    ] = 0.0,
    max_body_mib: Annotated[float, typer.Option("--max-body-mib", help="Largest request.")] = 64.0,
    max_queue: Annotated[
        int, typer.Option("--max-queue", min=1, help="Decisions that may wait; the others get the fallback at once.")
    ] = 256,
    deadline_ms: Annotated[
        float, typer.Option("--deadline-ms", min=0, help="A decision that waited longer gets the fallback.")
    ] = 250.0,
    reservation_ms: Annotated[
        float,
        typer.Option("--reservation-ms", min=0, help="How long a decision is added to what the gateway counts."),
    ] = 20.0,
    keep_s: Annotated[float, typer.Option("--keep-s", help="How long a decision waits for its outcome.")] = 600.0,
    objective: Annotated[
        str,
        typer.Option(
            "--objective", envvar="LATENCY_OBJECTIVE_TYPE", help="What llm-d's routes answer: mean or quantile."
        ),
    ] = "mean",
    quantile: Annotated[
        float,
        typer.Option("--quantile", envvar="LATENCY_QUANTILE_ALPHA", help="Which quantile that is: 0.5, 0.9 or 0.99."),
    ] = 0.9,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Answer the gateways that ask which instance to use: Lodestar's, llm-d's, or one of your own."""
    say_first_use()
    import logging

    from lodestar.pipeline.serve.options import ServeOptions, read_token
    from lodestar.pipeline.serve.refits import newest_refit
    from lodestar.pipeline.serve.server import serve as run

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    resumed = newest_refit(state) if artifact is None and learn and state is not None else None
    options = ServeOptions(
        artifact=artifact if resumed is None else str(resumed),
        host=host,
        port=port,
        token=read_token(token_file),
        decision_log=decision_log,
        log_mib=log_mib,
        learn=learn,
        refit_s=refit_s,
        shadow=shadow,
        max_body_mib=max_body_mib,
        max_queue=max_queue,
        deadline_ms=deadline_ms,
        watch_s=watch_s,
        policy=policy,
        state=state,
        reservation_ms=reservation_ms,
        keep_s=keep_s,
        objective=objective,
        quantile=quantile,
        seed=seed,
    )
    run(options, lambda serving, url: _say(as_json, serving, url))


def _say(as_json: bool, serving: Serving, url: str) -> None:
    """Tell where it serves, once it does."""
    options = serving.options
    document: dict[str, Any] = {
        "url": url,
        "pid": os.getpid(),
        "artifact": options.artifact,
        "version": serving.version,
        "policy": serving.policy_name,
        "learning": options.learn,
        "shadow": options.shadow,
        "decision_log": str(options.decision_log) if options.decision_log else None,
    }
    if as_json:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    sys.stderr.write(f"serving on {url}, routes on {url}/docs; stop with Ctrl-C\n")
    sys.stderr.flush()
