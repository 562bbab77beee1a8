"""The commands: each parses, calls one function of a stage, and prints. Heavy imports wait until a command runs."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lodestar.pipeline.console import Dataset, Home, Json, Seed, emit, progress_bar, say_first_use
from lodestar.pipeline.estimate_cli import estimate
from lodestar.pipeline.evaluate_cli import evaluate
from lodestar.pipeline.headline_cli import headline
from lodestar.pipeline.models_cli import models_app
from lodestar.pipeline.policies_cli import policies_app
from lodestar.pipeline.predictors_cli import train, tune
from lodestar.pipeline.replay_cli import calibrate, replay
from lodestar.pipeline.serve_cli import serve
from lodestar.pipeline.ship_cli import ship
from lodestar.pipeline.traces_cli import traces_app
from lodestar.pipeline.validate_cli import validate
from lodestar.pipeline.workload_cli import simulate, workload_app

__all__ = ["app", "main"]

INTERRUPTED = 130  # as shells say it

app = typer.Typer(
    name="lodestar",
    help="Turn the logs of an LLM-inference router into a better router, offline.",
    epilog="Start with: lodestar demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from lodestar import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Turn the logs of an LLM-inference router into a better router, offline."""


@app.command()
def ingest(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Logs: files (plain, gz, zst, bz2, zip), directories, patterns, - for stdin.", metavar="PATH..."
        ),
    ],
    dataset: Annotated[str | None, typer.Option("--dataset", help="Name to keep them under.")] = None,
    format: Annotated[str | None, typer.Option("--format", help="Format, if it is not to be found out.")] = None,
    map: Annotated[
        Path | None, typer.Option("--map", help="TOML file that says what the columns of any other log mean.")
    ] = None,
    suggest_map: Annotated[
        bool, typer.Option("--suggest-map", help="Print a draft for --map instead, made from the file.")
    ] = False,
    logging_policy: Annotated[
        str | None,
        typer.Option(
            "--logging-policy",
            help="Policy that made the decisions; 'random' also says that all had the same chance.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on the first row that is refused.")] = False,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Read logs into a dataset; refused rows keep their reason."""
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.ingesting import ingest_logs, print_draft, require_rows, suggested_map
    from lodestar.reports.datasets import ingest_tables

    if suggest_map:
        print_draft(as_json, suggested_map(paths))
        return
    with progress_bar("ingest") as update:
        report = ingest_logs(
            Workspace.open(home), paths, dataset, format, map, logging_policy, strict, update
        ).to_dict()
    emit(as_json, report, lambda: ingest_tables(report))
    require_rows(report)


@app.command()
def inspect(
    dataset: Dataset,
    rejects: Annotated[bool, typer.Option("--rejects", help="Show the refused rows one by one instead.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="With --rejects: only those of this reason.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="With --rejects: how many to show.")] = 50,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Show what a dataset holds, what was refused, and what it allows."""
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.stages import inspected
    from lodestar.reports.datasets import inspect_tables, reject_tables

    found = inspected(Workspace.open(home), dataset, rejects, reason, limit)
    emit(as_json, found, lambda: reject_tables(found) if rejects else inspect_tables(found))


@app.command()
def drop(dataset: Dataset, home: Home = None, as_json: Json = False, seed: Seed = 0) -> None:
    """Remove a dataset; its models and replays stay."""
    from rich.text import Text

    from lodestar.data.storing.drop import drop_dataset
    from lodestar.data.workspace import Workspace

    gone = drop_dataset(Workspace.open(home), dataset)
    emit(as_json, gone, lambda: Text(f"dropped {dataset}: {gone['requests']} requests of {gone['sources']} sources"))


app.command()(train)
app.command()(tune)
app.command()(evaluate)
app.command()(calibrate)
app.command()(replay)
app.command()(estimate)
app.command()(headline)
app.command()(validate)


@app.command()
def report(
    to: Annotated[Path | None, typer.Option("--to", help="File to write.", show_default="beside the replay")] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Write the last replay as one HTML file and log it in MLflow."""
    from rich.text import Text

    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.stages import report_latest

    with progress_bar("report"):
        written = report_latest(Workspace.open(home), to)
    emit(as_json, written, lambda: Text(f"report {written['report']}\nMLflow run {written['run_id']}", overflow="fold"))


app.command()(ship)
app.command()(serve)


@app.command()
def ui(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on the loopback address.")] = 5000,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Open MLflow on the workspace, on loopback, until ctrl-C."""
    from rich.text import Text

    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.ui import MlflowServer

    with MlflowServer(Workspace.open(home), port) as server:
        address = {"url": server.url, "log": str(server.log)}
        emit(as_json, address, lambda: Text(f"MLflow on {server.url}; ctrl-C ends it"))
        sys.stdout.flush()
        server.wait()


@app.command()
def demo(
    requests: Annotated[int, typer.Option("--requests", min=600, help="Length of the generated workload.")] = 2500,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Run everything on a generated workload, nothing to download."""
    started = time.perf_counter()
    say_first_use()
    from rich.console import Console

    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.demo import demo as run
    from lodestar.pipeline.demo import demo_tables

    done = run(Workspace.open(home), requests, seed, Console(stderr=as_json))
    done["seconds"] = time.perf_counter() - started
    emit(as_json, done, lambda: demo_tables(done))


@app.command()
def formats(home: Home = None, as_json: Json = False, seed: Seed = 0) -> None:
    """List the log formats that ingest reads."""
    from lodestar.pipeline.listings import format_rows, listing

    rows = format_rows()
    emit(as_json, rows, lambda: listing(rows))


@app.command()
def engines(home: Home = None, as_json: Json = False, seed: Seed = 0) -> None:
    """List the engine presets, with their errors; --json adds their sources."""
    from lodestar.pipeline.listings import engine_rows, engine_table

    rows = engine_rows()
    emit(as_json, rows, lambda: engine_table(rows))


@app.command()
def features(home: Home = None, as_json: Json = False, seed: Seed = 0) -> None:
    """List the features that models see, with unit and formula."""
    from lodestar.pipeline.listings import feature_rows, listing

    rows = feature_rows()
    emit(as_json, rows, lambda: listing(rows))


app.command()(simulate)
app.add_typer(workload_app, name="workload")
app.add_typer(traces_app, name="traces")
app.add_typer(policies_app, name="policies")
app.add_typer(models_app, name="models")


def main() -> None:
    """Run the command line; a user's error is one line on stderr and exit code 2."""
    from lodestar.data.errors import LodestarError

    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="lodestar", standalone_mode=False)
    except LodestarError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _interrupted()
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; expected a path that can be used so. Name another one")
    except Exception as error:
        # What the parser of the command line refuses tells so; anything else is a bug and keeps its traceback.
        if not hasattr(error, "format_message"):
            raise
        said = error.format_message()
        groups = {group.typer_instance.info.name for group in app.registered_groups if group.typer_instance}
        words = sys.argv[1:2] + [word for word in sys.argv[2:3] if sys.argv[1] in groups and not word.startswith("-")]
        command = "lodestar" if said.startswith("No such command") else " ".join(["lodestar", *words])
        stop = "" if said.rstrip().endswith((".", "?", "!")) else "."
        _fail(f"{said.rstrip()}{stop} Run {command} --help for what is expected")
    if code == INTERRUPTED:  # Typer turns ctrl-C into this
        _interrupted()
    raise SystemExit(code if isinstance(code, int) else 0)


def _interrupted() -> NoReturn:
    """End at once: threads of libraries may be in the middle of something, and the interpreter would tear it down."""
    sys.stdout.flush()
    sys.stderr.write("lodestar: interrupted; what was finished is kept\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _fail(message: str, code: int = 2) -> NoReturn:
    sys.stderr.write(f"lodestar: {' '.join(message.split())}\n")
    raise SystemExit(code) from None


if __name__ == "__main__":
    main()
