"""Write the page of the engine presets from their file: ``python docs/make_engines.py > docs/engines.md``."""

from __future__ import annotations

from lodestar.models.engine import EngineModel
from lodestar.pipeline.listings import Row, engine_rows

HEAD = """# Engine presets

Made from `models/engine_presets.json` by `python docs/make_engines.py > docs/engines.md`.

A preset is the step time of one GPU, or several, with one model, and the key-value cache it holds. It serves where a
log tells no latencies, and gives a fitted engine what its log does not tell. A step with P new prompt tokens, D
decoding sequences, K tokens of context under them and attention work A takes, in milliseconds (`models/engine.py`)

    decode_base + decode_sequence · D + context_token · K                                                  (P = 0)
    prefill_base + prompt_token · P + prefill_sequence · D + prefill_context_token · K + attention · A     (P > 0)

*Error* is the mean absolute relative error of steps without / with prefill, over the step times that the coefficients
were fitted to. It says how well the formula describes those times, not how well they describe an engine that serves:
kernels alone are faster than an engine, by 7 to 50 % where both were measured (see the sources). The three columns of
times are what the preset says of a prompt of 2048 tokens, and of 1 and 64 sequences that decode at 1024 tokens each.

"""

FOOT = """
## An engine of one's own

A CSV of measured steps gives an engine of the same kind (`models/step_profile.py`), one line a step:

| column | what |
|---|---|
| `prefill_tokens` | new prompt tokens, of one prompt; 0 in a step that only decodes |
| `prefill_prefix` | tokens of that prompt computed or found before |
| `decode_seqs` | sequences that decode |
| `decode_ctx` | tokens of context under *each* of them |
| `step_ms` | what the step took |
| `system`, `model`, `tp`, `kind` | optional: tell engines apart that share the file |

`python tests/bench/engine_gpu.py` measures such a profile on a GPU for a model of the shape of Llama-3.1-8B, and prints
it beside a preset.
"""


COLUMNS = (
    ("engine", "---"),
    ("GPU", "---"),
    ("model", "---"),
    ("prefill 2048, ms", "--:"),
    ("decode 1, ms", "--:"),
    ("decode 64, ms", "--:"),
    ("KV capacity, tokens", "--:"),
    ("error, %", "--:"),
    ("step times", "---"),
    ("KV capacity", "---"),
)


def page() -> str:
    """Return the page as Markdown."""
    names, rules = ("| " + " | ".join(parts) + " |\n" for parts in zip(*COLUMNS, strict=True))
    return HEAD + names + rules + "".join(_row(row) for row in engine_rows()) + FOOT


def _row(row: Row) -> str:
    engine = EngineModel.preset(row["engine"])
    prefill = engine.step_ms(prompt_tokens=2048, decoding=0, context_tokens=0, attention=2048**2 / 2)
    one, many = (engine.step_ms(prompt_tokens=0, decoding=n, context_tokens=1024 * n, attention=0) for n in (1, 64))
    errors = f"{100 * row['decode_error_ratio']:.1f} / {100 * row['prefill_error_ratio']:.1f}"
    return (
        f"| `{row['engine']}` | {row['gpu']} | {row['model']} | {prefill:.1f} | {one:.2f} | {many:.2f} | "
        f"{row['kv_capacity_tokens']:,} | {errors} | {row['source']} | {row['kv_source']} |\n"
    )


if __name__ == "__main__":
    print(page(), end="")
