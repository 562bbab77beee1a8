"""Workloads of real traces."""

from __future__ import annotations

from pathlib import Path

import pytest

from lodestar.data.log import Workload
from lodestar.data.workloads.load import load_workload
from lodestar.data.workspace import Workspace


@pytest.fixture(scope="session")
def mooncake(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> Workload:
    workspace = Workspace.open(tmp_path_factory.mktemp("mooncake"))
    return load_workload(workspace, str(traces / "mooncake/conversation_trace.jsonl.gz"))


@pytest.fixture(scope="session")
def azure(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> Workload:
    workspace = Workspace.open(tmp_path_factory.mktemp("azure"))
    return load_workload(workspace, str(traces / "azure/AzureLLMInferenceTrace_conv.csv.gz"))
