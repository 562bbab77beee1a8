"""The bodies of the native endpoint, as its OpenAPI document shows them."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lodestar.data.schema import SNAPSHOT_FIELDS

__all__ = [
    "SNAPSHOT_FIELDS",
    "Candidate",
    "DecideRequest",
    "Decided",
    "OutcomeRow",
    "OutcomesRequest",
    "OutcomesTaken",
    "Predicted",
    "Refusal",
    "Reloaded",
]

MOST_CANDIDATES: Final = 1024
MOST_OUTCOMES: Final = 10_000

Name = Annotated[str, Field(min_length=1, max_length=256)]
Count = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Latency = Annotated[float, Field(ge=0, le=8.64e7, allow_inf_nan=False)]


class _Body(BaseModel):
    """A body in which a misspelt key is an error: it would be a field that is silently not known."""

    model_config = ConfigDict(extra="forbid")


class Candidate(_Body):
    """An instance that the request could go to, and what the caller knows of it; leave out what it does not know."""

    instance: Name
    kind: Annotated[str, Field(max_length=256)] = Field("", description="Label of its hardware, as in the logs.")
    hit_ratio: Ratio | None = Field(None, description="Share of the prompt that is believed cached there.")
    inflight_requests: Count | None = Field(None, description="Sent and not finished, without this request.")
    running_requests: Count | None = Field(None, description="Running in the engine.")
    waiting_requests: Count | None = Field(None, description="Queued in the engine.")
    kv_usage_ratio: Ratio | None = Field(None, description="Share of the KV cache in use.")
    inflight_prefill_requests: Count | None = Field(None, description="Sent, no first token yet.")
    inflight_decode_requests: Count | None = Field(None, description="Past the first token.")
    prefill_tokens: Count | None = Field(None, description="Prompt tokens of the requests with no first token yet.")
    decode_tokens: Count | None = Field(None, description="Tokens generated so far by the requests in flight.")
    last_access_age_s: Count | None = Field(None, description="Since the deepest matched block was last used.")

    def known(self) -> list[float]:
        """Return the snapshot fields in their order, NaN where not known."""
        values = [getattr(self, name) for name in SNAPSHOT_FIELDS]
        return [math.nan if value is None else value for value in values]


class DecideRequest(_Body):
    """A request that is to be routed."""

    request_id: Name | None = Field(None, description="Names the decision as well; a new name is made if left out.")
    prompt_tokens: Annotated[int, Field(ge=0, le=100_000_000)] = Field(description="0 where not known.")
    session_id: Name | None = Field(None, description="The conversation, for the decision log.")
    prefix_group: Annotated[int, Field(ge=0, le=2**62)] | None = Field(
        None, description="Names the prefix that the prompt shares with others, such as a hash of its first blocks."
    )
    candidates: Annotated[list[Candidate], Field(min_length=1, max_length=MOST_CANDIDATES)]

    @model_validator(mode="after")
    def _each_once(self) -> DecideRequest:
        names = [each.instance for each in self.candidates]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"candidates name the instance {twice!r} twice; expected each once")
        return self


class Predicted(BaseModel):
    """Latencies on one candidate in ms; null without a model of it."""

    ttft_ms: float | None
    tpot_ms: float | None


class Decided(BaseModel):
    """The decision; lists are in the order of the candidates."""

    decision_id: str = Field(description="For /v1/outcomes.")
    instance: str | None = Field(description="Where to send the request; null in shadow mode.")
    would_choose: str = Field(description="The choice, in shadow mode too.")
    source: Literal["model", "cold start", "fallback", "queue full", "deadline"] = Field(
        description="What chose: the model; the heuristic of a start without one, or of a request outside the training "
        "range; or, where decisions could not be made in time, the fewest requests in flight."
    )
    scores: list[float | None] = Field(description="Cost of each in ms, lower is better; null: left out by the policy.")
    probabilities: list[float | None] = Field(description="Of choosing each; null where nothing was drawn.")
    predicted: list[Predicted]
    explored: bool = Field(description="Another candidate than the cheapest was drawn.")
    artifact_version: str | None


class OutcomeRow(_Body):
    """A finished request."""

    decision_id: Name
    instance: Name | None = Field(None, description="That served it, where it was not the one that was decided.")
    ttft_ms: Latency | None = None
    tpot_ms: Latency | None = Field(None, description="Per output token after the first.")
    e2e_ms: Latency | None = None
    output_tokens: Annotated[int, Field(ge=0, le=100_000_000)] | None = None
    status: Literal["ok", "cancelled", "timeout", "error"] = "ok"


class OutcomesRequest(_Body):
    """Finished requests."""

    outcomes: Annotated[list[OutcomeRow], Field(min_length=1, max_length=MOST_OUTCOMES)]


class Refusal(BaseModel):
    """An outcome that nothing can be learned from."""

    decision_id: str
    why: str


class OutcomesTaken(BaseModel):
    """What became of the outcomes."""

    learned: int = Field(description="Rows that are of use for training; used if the server learns.")
    logged: int = Field(description="Decisions that went into the decision log with their outcome.")
    refused: list[Refusal]


class Reloaded(BaseModel):
    """What serves after a reload."""

    reloaded: bool
    why_not: str | None
    artifact_version: str | None
