"""The catalogue of public traces: every entry is whole, true of the real files, and told in the documents."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.formats import formats
from lodestar.data.traces.catalogue import catalogue, find_trace, parse_catalogue

ROOT = Path(__file__).resolve().parents[2]

# Where the folder of real logs has the file of an entry.
REAL = {
    "mooncake-conversation": "mooncake/conversation_trace.jsonl",
    "azure-2023-conversation": "azure/AzureLLMInferenceTrace_conv.csv",
    "lodestar-sharing09-random": "lodestar/sharing09/random.csv",
    "lodestar-sharing09-prefix": "lodestar/sharing09/prefix.csv",
    "lodestar-sharing09-rl": "lodestar/sharing09/rl.csv",
    "lodestar-sharing47-random": "lodestar/sharing47/random.csv",
    "lodestar-sharing47-prefix": "lodestar/sharing47/prefix.csv",
    "lodestar-sharing47-rl": "lodestar/sharing47/rl.csv",
    "lodestar-sharing09-prefix-klog": "lodestar/sharing09/prefix.klog",
    "lodestar-sharing09-rl-klog": "lodestar/sharing09/rl.klog",
    "llm-d-bimodal-h200": "llm-d-predictor/bimodal-h200.jsonl",
    "llm-d-sharegpt-h200": "llm-d-predictor/sharegpt-h200.jsonl",
    "weka-session-0007": "weka/trace_0007.json",
    "weka-session-0008": "weka/trace_0008.json",
    "aiperf-example": "aiperf/profile_export.jsonl",
    "llmservingsim-llama-8b": "vllm-timeseries/rtxpro6000-Llama-3.1-8B/requests.jsonl",
    "llmservingsim-qwen3-32b": "vllm-timeseries/rtxpro6000-Qwen3-32B/requests.jsonl",
}

GOOD = """
[a]
what = "w"
provides = ["arrivals"]
source = "https://example.org/a"
revision = "main"
licence = "MIT"
url = "https://example.org/a/main/a.csv"
file = "a.csv"
"""


@pytest.mark.parametrize("name", REAL)
def test_length_and_hash_are_those_of_the_real_file(traces: Path, name: str) -> None:
    content = gzip.decompress((traces / f"{REAL[name]}.gz").read_bytes())
    trace = find_trace(name)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (trace.size_bytes, trace.sha256)


@pytest.mark.parametrize("name", [name for name in REAL if catalogue()[name].format])
def test_the_format_of_an_entry_is_the_one_that_recognises_the_real_file(traces: Path, name: str) -> None:
    head = gzip.decompress((traces / f"{REAL[name]}.gz").read_bytes())[:65536]
    known = formats()[find_trace(name).format or ""]
    assert known.sniff(head)


def test_every_format_that_an_entry_names_is_one_that_ingest_knows() -> None:
    assert {trace.format for trace in catalogue().values() if trace.format} <= set(formats())


def test_every_entry_names_public_hosts_and_says_what_it_provides() -> None:
    hosts = {urlsplit(trace.url).hostname for trace in catalogue().values()}
    assert hosts == {"raw.githubusercontent.com", "github.com", "azurepublicdatasettraces.blob.core.windows.net"}
    assert [name for name, trace in catalogue().items() if not (trace.provides and trace.licence)] == []


def test_a_hash_is_only_claimed_together_with_a_commit_and_a_length() -> None:
    claimed = [trace for trace in catalogue().values() if trace.sha256]
    assert len(claimed) >= len(REAL)
    assert [trace.name for trace in claimed if not (trace.pinned and trace.size_bytes)] == []


def test_a_whole_entry_is_read() -> None:
    trace = parse_catalogue(GOOD)["a"]
    assert (trace.provides, trace.pinned, trace.sha256) == (("arrivals",), False, None)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('licence = "MIT"', 'license = "MIT"', "'license' is not known; did you mean 'licence'?"),
        ('licence = "MIT"', "", "licence is missing"),
        ('licence = "MIT"', "licence = 3", "licence is 3; expected text"),
        ('file = "a.csv"', 'file = "../a.csv"', "file is '../a.csv'; expected a file name without folders"),
        ("https://example.org/a/main", "ftp://example.org", "expected an https address"),
        ('["arrivals"]', '["arrival"]', "provides is ['arrival']; expected some of arrivals"),
        ("[a]", "[A]", "name is 'A'"),
        ("[a]", "a = 1\n[b]", "is 1; expected a table"),
        ('revision = "main"', f'revision = "{"0" * 40}"', f"expected an address at {'0' * 40}"),
        ('revision = "main"', 'revision = "main"\nsha256 = "abc"', "expected 64 hexadecimal digits"),
        ('revision = "main"', 'revision = "main"\nsize_bytes = 0', "expected a positive length"),
        ('revision = "main"', 'revision = "main"\nsize_bytes = true', "expected a whole number"),
        ("[a]", "[a", "expected TOML"),
    ],
)
def test_an_entry_that_cannot_be_right_is_refused_with_the_reason(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as refused:
        parse_catalogue(GOOD.replace(old, new))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_that_is_not_known_gets_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mooncake-toolagent'"):
        find_trace("mooncake-toolagnt")


def test_the_page_of_the_traces_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_traces", ROOT / "docs" / "make_traces.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "traces.md").read_text() == module.page()
