"""The house: stages are linked, the documents say what is true, and what ships is complete."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("data", "features", "models", "pipeline", "reports")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_linked(stage: str) -> None:
    link = ROOT / ".src" / "lodestar" / stage
    assert link.is_symlink(), (
        f"{link} is no link; on Windows, switch on developer mode and clone with git config core.symlinks true"
    )
    assert link.resolve() == ROOT / stage


def test_ci_runs_the_test_command_of_the_readme() -> None:
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert len(commands) == 2
    demo, tests = commands
    assert demo.endswith("lodestar demo")
    assert tests in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_reference_of_commands_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text() == module.reference()


def test_every_path_that_the_readme_names_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`((?:data|features|models|reports|pipeline|tests|docs)/[\w/.]*)`", text))
    named |= set(re.findall(r"\]\((docs/[\w.]+)\)", text))
    assert len(named) > 12
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_module_says_what_it_is_and_what_it_offers() -> None:
    silent = []
    for stage in STAGES:
        for path in (ROOT / stage).rglob("*.py"):
            text = path.read_text()
            if not text.startswith('"""') or (path.name != "__init__.py" and "__all__" not in text):
                silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_no_file_is_hard_to_hold_in_the_head() -> None:
    lengths = {path: len(path.read_text().splitlines()) for stage in STAGES for path in (ROOT / stage).rglob("*.py")}
    assert [str(path) for path, lines in lengths.items() if lines > 400] == []
