"""The log formats that Lodestar reads, by name."""

from __future__ import annotations

from importlib import import_module

from lodestar.data.reading import Format

__all__ = ["formats"]

# In the order in which they are tried on a file.
MODULES = (
    "native",
    "lodestar_csv",
    "lodestar_klog",
    "mooncake",
    "azure",
    "vllm_bench",
    "aiperf",
    "guidellm",
    "inference_perf",
    "burstgpt",
    "qwen_bailian",
    "weka",
    "dynamo",
    "vllm_otlp",
    "vllm_log",
    "vllm_prometheus",
    "vllm_timeseries",
    "vllm_timeseries_series",
    "vllm_timeseries_meta",
    "aibrix_client",
    "aibrix_gateway",
    "aibrix_workload",
    "llm_d",
)


def formats() -> dict[str, Format]:
    """Return every known format by name.

    >>> {"azure", "dynamo", "lodestar-klog", "mooncake", "native"} <= set(formats())
    True
    """
    known: dict[str, Format] = {}
    for module in MODULES:
        found: Format = import_module(f"{__name__}.{module}").FORMAT
        if found.name in known:
            raise ValueError(f"two formats are named {found.name!r}")
        known[found.name] = found
    return known
