"""Step times of a Llama-3.1-8B-shaped model on a GPU, beside a preset: ``python tests/bench/engine_gpu.py``.

Optional, in an environment of its own: it needs PyTorch and a GPU (`pip install torch numpy polars scipy`), and
downloads nothing: the weights are random, as the time of a step does not depend on them. A step is written out in plain
PyTorch: bfloat16, grouped-query attention by scaled_dot_product_attention over caches that lie in memory layer by
layer, captured as a CUDA graph. So it measures kernels, as the presets do, and not what an engine does besides; rotary
embeddings, a small kernel, are left out.

It measures steps over the preset's range of prompt tokens, prefix, sequences and context, writes them as a CSV that
`lodestar.models.step_profile` reads, fits both regimes and prints how the preset's shape and scale compare. `--tiny`
runs it all on a CPU at a shape of no meaning, to see that it works; `--fit CSV` only compares an earlier file.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lodestar.models.engine import EngineModel

COLUMNS = ("system", "model", "tp", "kind", "prefill_tokens", "prefill_prefix", "decode_seqs", "decode_ctx", "step_ms")
WARM_UPS, RUNS = 3, 11


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder, named as its configuration names them, and the steps to measure."""

    name: str
    layers: int = 32
    hidden: int = 4096
    heads: int = 32
    kv_heads: int = 8
    head: int = 128
    intermediate: int = 14_336
    vocabulary: int = 128_256
    prompts: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
    prefixes: tuple[int, ...] = (0, 512, 1024, 2048, 4096, 8192)
    sequences: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256)
    contexts: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    mixed: tuple[tuple[int, ...], ...] = ((128, 512, 2048), (1, 8, 32, 64, 128), (256, 1024, 4096))


@dataclass(frozen=True)
class Step:
    """The work of one step: a chunk of one prompt after a prefix, and sequences that decode at one context each."""

    prompt: int = 0
    prefix: int = 0
    sequences: int = 0
    context: int = 0

    @property
    def kind(self) -> str:
        return "decode" if not self.prompt else "mixed" if self.sequences else "prefill"

    @property
    def cached_tokens(self) -> int:
        """Tokens of cache that the step needs, its own included."""
        return (self.prompt and self.prefix + self.prompt) + self.sequences * (self.context + 1)


LLAMA_8B = Shape("Llama-3.1-8B-shaped")
TINY = Shape(
    "tiny",
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    head=16,
    intermediate=128,
    vocabulary=256,
    prompts=(16, 64, 256, 512),
    prefixes=(0, 128, 512),
    sequences=(1, 4, 16, 32),
    contexts=(16, 128, 512),
    mixed=((32, 256), (4, 16), (64, 256)),
)


def steps_of(shape: Shape) -> Iterator[Step]:
    """Yield the steps to measure: decode only, prefill only, both."""
    for sequences, context in product(shape.sequences, shape.contexts):
        yield Step(sequences=sequences, context=context)
    for prompt, prefix in product(shape.prompts, shape.prefixes):
        yield Step(prompt, prefix)
    for prompt, sequences, context in product(*shape.mixed):
        yield Step(prompt, 0, sequences, context)


class Decoder:
    """A decoder with random weights and a cache of so many tokens in each layer."""

    def __init__(self, torch: Any, shape: Shape, device: str, cache_tokens: int) -> None:
        self.torch, self.shape, self.device = torch, shape, device
        self.dtype, self.bias = torch.bfloat16, import_module("torch.nn.attention.bias")
        query, key = shape.heads * shape.head, shape.kv_heads * shape.head
        self.layers = [
            {
                "qkv": self.random(query + 2 * key, shape.hidden),
                "out": self.random(shape.hidden, query),
                "gate_up": self.random(2 * shape.intermediate, shape.hidden),
                "down": self.random(shape.hidden, shape.intermediate),
                "norms": torch.ones(2, shape.hidden, dtype=self.dtype, device=device),
                "cache": self.random(2, cache_tokens, shape.kv_heads, shape.head),
            }
            for _ in range(shape.layers)
        ]
        self.embedding = self.random(shape.vocabulary, shape.hidden)
        self.head = self.random(shape.vocabulary, shape.hidden)

    def random(self, *size: int) -> Any:
        return self.torch.randn(*size, dtype=self.dtype, device=self.device) * 0.02

    def run(self, step: Step, tokens: Any) -> Any:
        """Take one step; `tokens` are those of the prompt's chunk, then one of each sequence."""
        functional, shape = self.torch.nn.functional, self.shape
        hidden = self.embedding[tokens]
        for layer in self.layers:
            normed = functional.rms_norm(hidden, (shape.hidden,), layer["norms"][0])
            hidden = hidden + self.attention(step, layer, normed @ layer["qkv"].T) @ layer["out"].T
            gate, up = (functional.rms_norm(hidden, (shape.hidden,), layer["norms"][1]) @ layer["gate_up"].T).chunk(
                2, dim=-1
            )
            hidden = hidden + (functional.silu(gate) * up) @ layer["down"].T
        last = hidden[max(step.prompt - 1, 0) :]  # a prompt makes one token, as every sequence does
        return (last @ self.head.T).argmax(dim=-1)

    def attention(self, step: Step, layer: dict[str, Any], qkv: Any) -> Any:
        """Attend the chunk to its prefix and itself, and each sequence to its context, once their keys are cached."""
        shape, (keys, values) = self.shape, layer["cache"]
        query, key, value = qkv.view(len(qkv), -1, shape.head).split([shape.heads, shape.kv_heads, shape.kv_heads], 1)
        made, end = [], step.prompt and step.prefix + step.prompt
        if step.prompt:
            keys[step.prefix : end], values[step.prefix : end] = key[: step.prompt], value[: step.prompt]
            mask = self.bias.causal_lower_right(step.prompt, end)
            made.append(self.attended(query[None, : step.prompt], keys[None, :end], values[None, :end], mask))
        if step.sequences:
            each = step.context + 1
            own = slice(end, end + step.sequences * each)
            cached = [held[own].view(step.sequences, each, shape.kv_heads, shape.head) for held in (keys, values)]
            cached[0][:, -1], cached[1][:, -1] = key[step.prompt :], value[step.prompt :]
            made.append(self.attended(query[step.prompt :, None], cached[0], cached[1], None))
        return self.torch.cat(made).view(len(qkv), -1)

    def attended(self, query: Any, key: Any, value: Any, mask: Any) -> Any:
        """Attend (batch, tokens, heads, head) and return (batch · tokens, heads, head)."""
        query, key, value = (held.transpose(1, 2) for held in (query, key, value))
        result = self.torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, enable_gqa=True
        )
        return result.transpose(1, 2).flatten(0, 1)


def median_ms(torch: Any, run: Callable[[], object], device: str) -> float:
    """Return the median time of a step, on a GPU as a CUDA graph between events."""
    for _ in range(WARM_UPS):
        run()
    if device != "cuda":
        return statistics.median(_seconds(run) for _ in range(RUNS)) * 1000
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    took = []
    for _ in range(RUNS + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        took.append(start.elapsed_time(end))
    return statistics.median(took[1:])


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def cache_tokens(torch: Any, shape: Shape, device: str) -> int:
    """Return how many tokens of cache fit beside the weights, a tenth of the memory left free."""
    most = max(step.cached_tokens for step in steps_of(shape))
    if device != "cuda":
        return most
    matrices = shape.hidden * (2 * shape.heads + 2 * shape.kv_heads) * shape.head
    weights = 2 * (shape.layers * (matrices + 3 * shape.hidden * shape.intermediate))
    weights += 4 * shape.vocabulary * shape.hidden
    free, total = torch.cuda.mem_get_info()
    room = free - weights - 0.1 * total
    return min(most, int(room / (4 * shape.layers * shape.kv_heads * shape.head)))


def measure(torch: Any, shape: Shape, device: str, path: Path) -> None:
    """Measure every step whose cache fits, and write the CSV."""
    system = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    held = cache_tokens(torch, shape, device)
    decoder, wanted = Decoder(torch, shape, device, held), list(steps_of(shape))
    fitting = [step for step in wanted if step.cached_tokens <= held]
    print(f"{system}: {len(fitting)} of {len(wanted)} steps fit {held:,} tokens of cache; the rest is not measured")
    with path.open("w", newline="") as file, torch.inference_mode():
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for step in fitting:
            tokens = torch.randint(shape.vocabulary, (step.prompt + step.sequences,), device=device)
            took_ms = median_ms(torch, lambda step=step, tokens=tokens: decoder.run(step, tokens), device)
            work = (step.prompt, step.prefix, step.sequences, step.context)
            writer.writerow((system, shape.name, 1, step.kind, *work, f"{took_ms:.5f}"))
    print(f"wrote {path}")


def compare(path: Path, preset: str) -> None:
    """Fit the profile and print it beside the preset: coefficients, scale, and the error of the shape alone."""
    from lodestar.models.engine import COEFFICIENTS, EngineModel
    from lodestar.models.step_profile import fit_profile, read_profile

    steps, published = read_profile(path), EngineModel.preset(preset)
    fit = fit_profile(steps, published)
    print(f"{'coefficient':<26}{'measured':>12}{'±':>10}{preset:>22}{'ratio':>8}  identified")
    for name in COEFFICIENTS:
        found, told = getattr(fit.engine, name), getattr(published, name)
        error = fit.standard_errors.get(name, float("nan"))
        print(f"{name:<26}{found:>12.4g}{error:>10.1g}{told:>22.4g}{found / told:>8.2f}  {fit.identified[name]}")
    for kind, regime in (("decode", fit.decode), ("prefill", fit.prefill)):
        if regime is not None:
            print(f"{kind}: {regime.rows} steps, error held out {regime.error_ratio:.1%}, R² {regime.r2:.4f}")
            scale, shape = against(steps.rows(named=True), published, kind == "prefill")
            print(f"{kind}: {scale:.3f} times as long as {preset} says; its shape at that scale errs by {shape:.1%}")
    for note in fit.notes:
        print(note)


def compared(path: Path, preset: str) -> int:
    """Compare, or say in one line what is wrong with the file or the preset."""
    from lodestar.data.errors import LodestarError

    try:
        compare(path, preset)
    except LodestarError as error:
        print(error)
        return 2
    return 0


def against(steps: list[dict[str, Any]], published: EngineModel, prefills: bool) -> tuple[float, float]:
    """Return the median ratio of measured to published time, and the mean relative error that is left at that scale."""
    ratios = [
        step["step_ms"]
        / published.step_ms(
            prompt_tokens=step["prefill_tokens"],
            decoding=step["decode_seqs"],
            context_tokens=step["decode_seqs"] * step["decode_ctx"],
            attention=step["prefill_tokens"] * (step["prefill_prefix"] + step["prefill_tokens"] / 2),
        )
        for step in steps
        if (step["prefill_tokens"] > 0) == prefills
    ]
    scale = statistics.median(ratios)
    return scale, statistics.mean(abs(scale / ratio - 1) for ratio in ratios)


def main() -> int:
    """Measure and compare, or say in one line why not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="h100-llama-3.1-8b", help="to compare with")
    parser.add_argument("--out", type=Path, default=Path("engine_gpu.csv"), help="where the steps are written")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape on the CPU, to see that it works")
    parser.add_argument("--fit", type=Path, help="compare this file and measure nothing")
    options = parser.parse_args()
    if options.fit is None:
        try:
            import torch
        except ImportError:
            print("PyTorch is not installed; expected an environment of its own: pip install torch numpy polars scipy")
            return 2
        if not options.tiny and not torch.cuda.is_available():
            print("no GPU is at hand; --tiny runs a tiny shape on the CPU")
            return 2
        device, shape = ("cpu", TINY) if options.tiny else ("cuda", LLAMA_8B)
        measure(torch, shape, device, options.out)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".src"))
    try:
        return compared(options.fit or options.out, options.preset)
    except ImportError as error:
        print(f"not compared: {error}; run with --fit {options.out} where Lodestar is installed")
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
