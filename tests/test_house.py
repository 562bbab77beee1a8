"""The house: stages are linked, the documents say what is true, and what ships is complete."""

from __future__ import annotations

import re

import pytest

from house import ROOT, script

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


@pytest.mark.parametrize(
    ("maker", "page"),
    [
        ("make_cli.reference", "cli.md"),
        ("make_formats.page", "formats.md"),
        ("make_engines.page", "engines.md"),
        ("make_policies.page", "policies.md"),
    ],
)
def test_a_page_that_is_made_is_up_to_date(maker: str, page: str) -> None:
    name, function = maker.split(".")
    assert (ROOT / "docs" / page).read_text() == getattr(script(name), function)()


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
