"""What is known: formats, policies and features, as rows for a table or JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from lodestar.data.formats import formats
from lodestar.features.definitions import FEATURES
from lodestar.models.engine import presets
from lodestar.pipeline.replay.policy_names import known_policies
from lodestar.pipeline.replay.routing.contract import ENGINE, MODEL, is_setting, spaces

__all__ = ["engine_rows", "feature_rows", "format_rows", "listing", "policy_rows", "policy_settings", "policy_table"]

Row = dict[str, Any]


def format_rows() -> list[Row]:
    """Return each log format with what it provides."""
    return [
        {
            "format": known.name,
            "description": known.description,
            "provides": ", ".join(known.provides),
            "tested_on": known.sample,
        }
        for known in formats().values()
    ]


def policy_rows() -> list[Row]:
    """Return each routing policy with the first sentence of its description, its settings and what it needs.

    >>> policy_rows()[0]["policy"]
    'random'
    """
    return [
        {
            "policy": known.name,
            "rule": (known.__doc__ or "").partition("\n")[0].replace("``", ""),
            "settings": ",".join(f"{row['setting']}={row['default']}" for row in policy_settings(known)),
            "needs": ", ".join(
                (
                    *known.fields,
                    *({MODEL: ["a model"], ENGINE: ["a replay"]}.get(known.predictor, ())),
                )
            ),
        }
        for known in known_policies()
    ]


def policy_settings(policy: type[object]) -> list[Row]:
    """Return the settings of a policy that a user can set, with default and the range that is searched.

    >>> from lodestar.pipeline.replay.policies.aibrix_prefix_cache import AibrixPrefixCache
    >>> policy_settings(AibrixPrefixCache)[1]
    {'setting': 'deviations', 'default': '1', 'range': '0 to 4'}
    """
    searched = spaces(policy)
    return [
        {
            "setting": each.name,
            "default": f"{each.default:g}" if isinstance(each.default, float) else str(each.default).lower(),
            "range": str(searched[each.name]) if each.name in searched else "",
        }
        for each in fields(policy)  # type: ignore[arg-type]
        if is_setting(each)
    ]


def policy_table(rows: list[Row]) -> Group:
    """Draw the policies with what they do; --json adds settings and needs."""
    table = listing([{"policy": row["policy"], "what it does": row["rule"]} for row in rows])
    return Group(
        table,
        "Settings: NAME,key=value,key=value; --json lists them, docs/policies.md explains them.\n"
        "epsilon:NAME and softmax:NAME explore; FILE.py:CLASS is one of your own.",
    )


def feature_rows() -> list[Row]:
    """Return each feature with unit and formula, in the order of the feature matrix."""
    return [{"feature": known.name, "unit": known.unit, "formula": known.formula} for known in FEATURES]


def engine_rows() -> list[Row]:
    """Return each engine preset with its cache, its errors and its sources.

    >>> engine_rows()[0]["engine"]
    'h100-llama-3.1-8b'
    """
    return [
        {
            "engine": name,
            "gpu": told["gpu"] if told["tp"] == 1 else f"{told['tp']} x {told['gpu']}",
            "model": told["model"],
            "kv_capacity_tokens": told["kv_capacity_tokens"],
            "decode_error_ratio": told["decode_error_ratio"],
            "prefill_error_ratio": told["prefill_error_ratio"],
            "source": told["source"],
            "kv_source": told["kv_source"],
        }
        for name, told in presets().items()
    ]


def engine_table(rows: list[Row]) -> Table:
    """Draw the presets without their sources, which are sentences."""
    return listing(
        [
            {
                "engine": row["engine"],
                "gpu": row["gpu"],
                "model": row["model"],
                "cache tokens": f"{row['kv_capacity_tokens']:,}",
                "decode error": f"{row['decode_error_ratio']:.1%}",
                "prefill error": f"{row['prefill_error_ratio']:.1%}",
            }
            for row in rows
        ]
    )


def listing(rows: list[Row]) -> Table:
    """Draw rows as a table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table
