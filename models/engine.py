"""The engine model: how long a step of one instance takes, and what the instance can hold."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

from lodestar.data.errors import ConfigError, unknown

__all__ = ["COEFFICIENTS", "PRESET_METADATA", "SCHEDULING", "EngineModel", "presets"]

SCHEDULING: Final = ("fcfs", "priority")
#: What the time of a step is made of.
COEFFICIENTS: Final = (
    "decode_base_ms",
    "decode_sequence_ms",
    "context_token_ms",
    "prefill_base_ms",
    "prompt_token_ms",
    "prefill_sequence_ms",
    "prefill_context_token_ms",
    "attention_ms",
)
#: What a preset says beside the settings of its engine.
PRESET_METADATA: Final = ("gpu", "model", "tp", "decode_error_ratio", "prefill_error_ratio", "source", "kv_source")


@dataclass(frozen=True, slots=True)
class EngineModel:
    """Step time of a continuous-batching engine, linear in its work, with one regime for steps that prefill.

    A step with P new prompt tokens, D decoding sequences, K tokens of context under those sequences and attention
    work A = Σ chunk · (context before the chunk + chunk / 2) takes, in milliseconds::

        decode_base_ms + decode_sequence_ms · D + context_token_ms · K                                    (P = 0)
        prefill_base_ms + prompt_token_ms · P + prefill_sequence_ms · D + prefill_context_token_ms · K
                        + attention_ms · A                                                                (P > 0)

    Attributes:
        kv_capacity_tokens: tokens of key-value cache that fit.
        request_overhead_ms: from the router's decision until the engine has the request in its queue.
        response_overhead_ms: from the end of a step until the router sees its token.
        max_batched_tokens: token budget of one step (chunked prefill).
        max_sequences: requests that run at once.
        block_tokens: tokens of one block of key-value cache.
        prefix_caching: whether blocks of finished requests stay usable until they are evicted.
        chunked_prefill: whether a step mixes decoding with pieces of prompts; if not, steps with waiting prompts
            take whole prompts and nothing else, as older engines do.
        scheduling: 'fcfs', or 'priority': lower values of the workload's priority first, then by arrival.
        noise_ratio: standard deviation of the log of a request's prefill work, drawn once a request.

    >>> step = EngineModel().step_ms(prompt_tokens=2048, decoding=0, context_tokens=0, attention=2048**2 / 2)
    >>> round(step, 1)
    42.2
    """

    decode_base_ms: float = 6.345
    decode_sequence_ms: float = 0.01103
    context_token_ms: float = 4.131e-5
    prefill_base_ms: float = 4.815
    prompt_token_ms: float = 0.01726
    prefill_sequence_ms: float = 0.01662
    prefill_context_token_ms: float = 4.027e-5
    attention_ms: float = 9.78e-7
    kv_capacity_tokens: int = 420_992
    request_overhead_ms: float = 0.0
    response_overhead_ms: float = 0.0
    max_batched_tokens: int = 2048
    max_sequences: int = 256
    block_tokens: int = 16
    prefix_caching: bool = True
    chunked_prefill: bool = True
    scheduling: str = "fcfs"
    noise_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no engine can be."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) and value < 0:
                raise ConfigError(f"engine {field.name} is {value}; expected zero or more")
        for name in ("max_batched_tokens", "max_sequences", "block_tokens", "kv_capacity_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"engine {name} is {getattr(self, name)}; expected at least 1")
        if self.scheduling not in SCHEDULING:
            raise unknown("engine scheduling", self.scheduling, SCHEDULING)
        if self.max_batched_tokens < self.max_sequences:
            raise ConfigError(
                f"engine max_batched_tokens is {self.max_batched_tokens}, below max_sequences {self.max_sequences}; "
                "expected room for one token of every sequence. Raise the one or lower the other"
            )

    def step_ms(self, *, prompt_tokens: float, decoding: float, context_tokens: float, attention: float) -> float:
        """Return the time of one step in milliseconds."""
        if prompt_tokens == 0:
            return self.decode_base_ms + self.decode_sequence_ms * decoding + self.context_token_ms * context_tokens
        return (
            self.prefill_base_ms
            + self.prompt_token_ms * prompt_tokens
            + self.prefill_sequence_ms * decoding
            + self.prefill_context_token_ms * context_tokens
            + self.attention_ms * attention
        )

    def slowed(self, factor: float) -> EngineModel:
        """Return the same engine with every step `factor` times as long.

        >>> EngineModel().slowed(2.0).decode_base_ms
        12.69
        """
        return replace(self, **{name: getattr(self, name) * factor for name in COEFFICIENTS})

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name."""
        return asdict(self)

    @classmethod
    def preset(cls, name: str) -> EngineModel:
        """Return a published engine by its name.

        >>> round(EngineModel.preset("h100-llama-3.1-8b").prompt_token_ms, 5)
        0.01726
        """
        known = presets()
        if name not in known:
            raise unknown("engine preset", name, known)
        return replace(cls(), **{key: value for key, value in known[name].items() if key not in PRESET_METADATA})


@cache
def presets() -> dict[str, dict[str, Any]]:
    """Return every preset's settings, with its GPU, model and tensor parallelism, its sources and its errors.

    `decode_error_ratio` and `prefill_error_ratio` are the mean absolute relative errors of steps without and with
    prefill, over the step times that the coefficients were fitted to: they say nothing of any other engine.

    >>> presets()["h100-llama-3.1-8b"]["prefill_error_ratio"]
    0.0419
    """
    text = files("lodestar.models").joinpath("engine_presets.json").read_text(encoding="utf-8")
    loaded: dict[str, dict[str, Any]] = json.loads(text)
    return loaded
