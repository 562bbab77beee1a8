"""The commands that make and change workloads, as people and scripts use them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lodestar.data.errors import ConfigError
from lodestar.data.workloads.load import load_workload
from lodestar.data.workloads.presets import preset_names, preset_text
from lodestar.data.workspace import Workspace
from lodestar.pipeline.workload_cli import simulate, workload_app
from workload_making import same

app = typer.Typer()
app.command()(simulate)
app.add_typer(workload_app, name="workload")
VERBS = ("slice", "thin", "merge", "warp", "scale", "shift", "extend")
Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder and return its JSON document."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--json", "--home", "home"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return invoke


@pytest.fixture
def sharing(run: Run) -> str:
    run("simulate", "sharing47", "--to", "w.jsonl", "--requests", "200")
    return "w.jsonl"


@pytest.mark.parametrize("command", [["simulate"], *(["workload", verb] for verb in VERBS)], ids=" ".join)
def test_every_command_explains_itself_and_takes_the_common_options(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], terminal_width=100).output
    for option in ("--home", "--json", "--seed", "--to", "--dataset", "--format"):
        assert option in shown


def test_workload_alone_lists_its_verbs() -> None:
    shown = CliRunner().invoke(app, ["workload"]).output
    assert all(f" {verb} " in shown for verb in VERBS)


def test_the_list_has_every_preset_and_show_prints_its_file(run: Run) -> None:
    assert [row["preset"] for row in run("simulate", "--list")] == preset_names()
    assert run("simulate", "--show", "agents")["toml"] == preset_text("agents")
    assert CliRunner().invoke(app, ["simulate", "--show", "agents"]).stdout == preset_text("agents")


def test_a_preset_becomes_a_file_and_a_dataset(run: Run) -> None:
    told = run("simulate", "sharing47", "--to", "w.jsonl.gz", "--requests", "500", "--dataset", "mine")
    assert told["requests"] == 500
    assert told["shared_ratio"] == pytest.approx(0.47, abs=1e-3)
    assert told["seen_before_ratio"] == pytest.approx(0.9 * 0.47, abs=1e-3)
    assert told["rate_per_s"] == pytest.approx(6, rel=0.15)
    assert told["notes"] == []
    workspace = Workspace.open(Path("home"))
    assert same(load_workload(workspace, "mine"), load_workload(workspace, "w.jsonl.gz"))


def test_a_saved_preset_makes_what_the_preset_makes(run: Run) -> None:
    Path("mine.toml").write_text(preset_text("sessions"))
    for recipe, to in (("mine.toml", "a.jsonl"), ("sessions", "b.jsonl")):
        run("simulate", recipe, "--to", to, "--requests", "100", "--seed", "3")
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()


def test_rate_and_keys_are_set(run: Run) -> None:
    settings = ("--rate-per-s", "20", "--set", "prefixes.sharing_ratio=0.3", "--set", "output_tokens.high=90")
    told = run("simulate", "sharing09", "--to", "w.jsonl", *settings)
    assert told["rate_per_s"] == pytest.approx(20, rel=0.1)
    assert told["shared_ratio"] == pytest.approx(0.3, abs=1e-3)
    assert told["output_tokens_mean"] == 90


def test_an_empirical_recipe_reads_a_dataset(run: Run, sharing: str) -> None:
    run("workload", "slice", sharing, "--to", "s.jsonl", "--requests", "100", "--dataset", "real")
    lengths = "output_tokens={distribution='empirical', source='real', column='prompt_tokens'}"
    told = run("simulate", "sharing09", "--to", "e.jsonl", "--set", lengths)
    assert told["output_tokens_mean"] > 1000


def test_slices_by_time_and_by_count(run: Run, sharing: str) -> None:
    assert run("workload", "slice", sharing, "--to", "a.jsonl", "--first", "50", "--requests", "20")["requests"] == 20
    told = run("workload", "slice", sharing, "--to", "b.jsonl", "--from-s", "5", "--to-s", "15")
    assert told["span_s"] < 10
    assert 20 < told["requests"] < 120


def test_thins_by_request_and_by_group(run: Run, sharing: str) -> None:
    assert run("workload", "thin", sharing, "--to", "a.jsonl", "--keep-ratio", "0.3")["requests"] == 60
    told = run("workload", "thin", sharing, "--to", "b.jsonl", "--keep-ratio", "0.5", "--groups")
    assert told["requests"] == 100
    assert told["shared_ratio"] == pytest.approx(0.47, abs=0.01)


def test_merges_extends_and_scales(run: Run, sharing: str) -> None:
    alone = run("workload", "scale", sharing, "--to", "s.jsonl", "--factor", "2")
    assert alone["rate_per_s"] == pytest.approx(12, rel=0.2)
    both = run("workload", "merge", sharing, "s.jsonl", "--to", "m.parquet")
    assert both["requests"] == 400
    assert both["seen_before_ratio"] == pytest.approx(alone["seen_before_ratio"])
    shared = run("workload", "merge", sharing, sharing, "--share-blocks", "--to", "t.jsonl")
    assert shared["seen_before_ratio"] > 0.7
    longer = run("workload", "extend", sharing, "--to", "x.jsonl", "--copies", "4")
    assert longer["requests"] == 800
    assert longer["rate_per_s"] == pytest.approx(alone["rate_per_s"] / 2, rel=0.01)


def test_warps_and_shifts(run: Run, sharing: str) -> None:
    span_s = run("workload", "scale", sharing, "--to", "s.jsonl", "--factor", "1")["span_s"]
    warped = run("workload", "warp", sharing, "--to", "w2.jsonl", "--point", "10:20")
    assert warped["span_s"] == pytest.approx(2 * span_s)
    shifted = run("workload", "shift", sharing, "--to", "f.jsonl", "--at-s", "10", "--factor", "2")
    assert shifted["span_s"] == pytest.approx(10 + (span_s - 10) / 2)
    other = run("workload", "shift", sharing, sharing, "--to", "o.jsonl", "--at-s", "10")
    assert other["span_s"] == pytest.approx(10 + span_s)


def test_a_real_trace_goes_through_all_verbs(run: Run, traces: Path) -> None:
    source = str(traces / "azure/AzureLLMInferenceTrace_conv.csv.gz")
    told = run("workload", "slice", source, "--to", "a.jsonl", "--to-s", "600")
    assert told["inferred"]["blocks"].startswith("neither blocks")
    assert run("workload", "extend", "a.jsonl", "--to", "b.jsonl", "--copies", "4")["requests"] == 4 * told["requests"]
    mooncake = str(traces / "mooncake/conversation_trace.jsonl.gz")
    made = run("simulate", "conversation", "--to", "c.jsonl.zst", "--set", f"trace.source={mooncake}")
    assert made["block_tokens"] == 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["simulate"], "simulate lacks RECIPE"),
        (["simulate", "sharing09"], "simulate lacks --to"),
        (["simulate", "sharing9", "--to", "a.jsonl"], "preset 'sharing9' is not known; did you mean 'sharing09'"),
        (["simulate", "no.toml", "--to", "a.jsonl"], "no.toml: No such file"),
        (["simulate", "--show", "sharing9"], "did you mean 'sharing09'"),
        (["simulate", "conversation", "--to", "a.jsonl"], "--set trace.source=FILE"),
        (["simulate", "sharing09", "--to", "a.txt"], "suffix is not known"),
        (
            ["simulate", "sharing09", "--to", "a.jsonl", "--set", "prefix.sharing_ratio=1"],
            "sharing09: recipe: key 'prefix'",
        ),
        (["simulate", "sharing09", "--to", "a.jsonl", "--format", "x"], "format 'x' is not known"),
        (["workload", "slice", "no", "--to", "a.jsonl"], "neither time and count"),
        (["workload", "slice", "no", "--to", "a.jsonl", "--to-s", "1", "--first", "0"], "both time and count"),
        (["workload", "scale", "no", "--to", "a.jsonl", "--factor", "2"], "dataset or file 'no' is not known"),
        (["workload", "warp", "no", "--to", "a.jsonl", "--point", "5"], "--point '5' is no point"),
        (["workload", "shift", "no", "--to", "a.jsonl", "--at-s", "5"], "neither of SOURCE2 and --factor"),
    ],
)
def test_mistakes_say_what_was_expected(run: Run, arguments: list[str], said: str) -> None:
    with pytest.raises(Exception, match=re.escape(said)):
        run(*arguments)
    assert list(Path().glob("*.jsonl")) == []


def test_a_dataset_that_is_there_already_is_not_added_to(run: Run, sharing: str) -> None:
    run("workload", "slice", sharing, "--to", "a.jsonl", "--requests", "5", "--dataset", "mine")
    with pytest.raises(ConfigError, match="dataset 'mine' is there already"):
        run("workload", "slice", sharing, "--to", "b.jsonl", "--requests", "6", "--dataset", "mine")
    assert not Path("b.jsonl").exists()


def test_the_reference_names_every_preset_and_verb_and_its_examples_run(run: Run) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "workloads.md").read_text()
    for name in (*preset_names(), *VERBS):
        assert f"`{name}`" in text, name
    Path("mine.toml").write_text(re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)[0])
    examples = re.findall(r"^lodestar ((?:simulate|workload) .*?)(?:  +#.*)?$", text, flags=re.MULTILINE)
    assert len(examples) > 10
    for example in examples:
        if "FILE" not in example and "--list" not in example and "--show" not in example:
            run(*example.split())
