"""Write the page of the routing policies from their code: ``python docs/make_policies.py > docs/policies.md``."""

from __future__ import annotations

import inspect
import re

from lodestar.pipeline.listings import policy_settings
from lodestar.pipeline.replay.policy_names import known_policies
from lodestar.pipeline.replay.routing.contract import ENGINE, MODEL, Policy
from lodestar.pipeline.replay.routing.learning import LearningPolicy

HEAD = """# Routing policies

Made from `pipeline/replay/policies/` by `python docs/make_policies.py > docs/policies.md`.

    lodestar policies                                   # the list
    lodestar replay mine --policy least-request --policy aibrix-prefix-cache,deviations=2 --policy epsilon:dynamo-kv
    lodestar replay mine --policy least-request --policy lmetric --policy prefix-hit-threshold --tune
    lodestar policies score mine --policy llm-d-default # how likely it would have made each logged decision

How they compare: [leaderboard.md](leaderboard.md). Two of them are checked decision for decision against the peer
itself, the rest against their source ([below](#how-they-are-checked)).

## How a policy decides

A policy gives every candidate a *cost*, and picks by cost. Unless it says otherwise, the lowest cost wins and ties are
drawn at random; a policy can settle ties by the router's list instead, draw with a softmax of its costs, draw by
weights, or explore. Whatever it does, the probability of every candidate is known: it stands in recorded decisions, and
`lodestar policies score` works it out for logged ones.

What it remembers changes only as it hears of events: a request was sent (by its own choice or another's), its first
token came, it is over, an instance left. So the same class replays, scores logged decisions and serves
(`pipeline/replay/routing/policy_state.py`):

```python
import numpy as np

from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.policy_state import PolicyState

policy = make_policy("least-uncached-tokens")
state = PolicyState(policy, Fleet(["a", "b"]), block_tokens=16)
snapshot = np.zeros((2, 10))  # what the router knows: see data/schema.py
request = state.request(now_s=0.0, prompt_tokens=900, blocks=[17, 4])  # ids of its prefix blocks
choice = policy.choose(request, snapshot, state, np.random.default_rng(0))
state.sent(request, choice.instance, snapshot)
state.first_token(request, choice.instance, at_s=0.3)
state.done(request, choice.instance, at_s=2.1)
```

Policies that predict take their models with them: `make_policy("learned", Models.of(ttft_model))`, of
`pipeline/replay/routing/contract.py`. Policies that must know the engines take them from the fleet:
`Fleet(names, engines)`.

Settings are written behind the name: `NAME,key=value,key=value`. A setting with a range is one that `--tune` searches.

`epsilon:NAME` sends a share of the requests (`epsilon=0.1`) anywhere, each instance alike; `softmax:NAME` draws with
p ∝ exp(-(c - min c) / ((max c - min c) · `temperature`)) for the policy's costs c (`temperature=0.1`). With `epsilon:`
every candidate has a known chance, as importance weights need it; with `softmax:` every one that the rule does not rule
out. They wrap compiled policies.

"""

FOOT = """
## How they are checked

- `dynamo-kv` and `sglang-cache-aware` decide beside the peer itself, in an environment of its own: Dynamo's
  `SelectionService` of ai-dynamo-runtime 1.6.1 in process, and the server of sglang-router 0.3.2 before small HTTP
  workers (`tests/peers/`). These tests install the peer into the user's cache folder and skip where that is impossible.
- The others are worked by hand from their source, and where a rule is more than a formula compared with a second,
  plain implementation over random streams (`tests/pipeline/policies/`).
- Every policy, also under `epsilon:` and `softmax:`, keeps the contract (`test_contract.py` there): repeatable by its
  seed, probabilities that sum to one, no effect of the order of candidates unless the peer has one, instances without
  metrics, one candidate, none, and instances that join and leave.

## A policy of one's own

In plain Python, one class in one file: see [the README](../README.md#a-policy-of-your-own) and
[cluster.md](cluster.md#a-policy-of-your-own). A package can bring policies too, by an entry point:

```toml
[project.entry-points."lodestar.policies"]
mine = "my_package.routing:Mine"     # a class with choose, or a compiled one as those above
```

A compiled policy is a frozen dataclass with its settings, a rule that fills the costs, and, if it remembers something,
a notice. In `pipeline/replay/policies/` `least_request.py` is the shortest, `aibrix_prefix_cache.py` has settings
(`parameters` hands them to the rule as `parameters.values`; a `tunable` one is searched by `--tune`), and
`least_uncached_tokens.py` has a memory. A file of your own works from anywhere, as `--policy my_router.py:Mine`. To
ship with Lodestar it is one file in that folder, its import and its place in the folder's list; a test keeps the list
complete, and `python docs/make_policies.py > docs/policies.md` this page.
"""

_QUOTED = re.compile(r"``([^`]+)``")


def page() -> str:
    """Return the page as Markdown."""
    return HEAD + _table() + "\n## One by one\n" + "".join(map(_section, known_policies())) + FOOT


def _table() -> str:
    rows = "".join(
        f"| [`{policy.name}`](#{policy.name}) | {_text(inspect.getdoc(policy) or '').partition(chr(10))[0]} |\n"
        for policy in known_policies()
    )
    return "| policy | what it does |\n|---|---|\n" + rows


def _section(policy: type[Policy] | type[LearningPolicy]) -> str:
    settings = policy_settings(policy)
    meanings = _meanings(policy)
    columns = ("setting", "default", "searched", *(["meaning"] if meanings else []))
    rows = "".join(
        f"| `{row['setting']}` | {row['default']} | {row['range']} |"
        + (f" {meanings.get(row['setting'], '')} |\n" if meanings else "\n")
        for row in settings
    )
    table = f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n{rows}" if rows else ""
    beside = {MODEL: "\nNeeds trained models.\n", ENGINE: "\nReplays only.\n"}.get(policy.predictor, "")
    return f"\n### {policy.name}\n\n{_text(inspect.getdoc(policy) or '')}\n{beside}{table}"


def _meanings(policy: type[object]) -> dict[str, str]:
    """Return what a docstring says of each setting, the policy's own or that of the class it builds on."""
    found: dict[str, str] = {}
    for each in (policy, *policy.__bases__):
        _, _, listed = inspect.cleandoc(each.__doc__ or "").partition("\nAttributes:\n")
        for name, meaning in re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", listed, flags=re.MULTILINE):
            found.setdefault(name, _text(" ".join(meaning.split())))
    return found


def _text(docstring: str) -> str:
    """Turn double backquotes into single ones, and leave out what lists attributes."""
    return _QUOTED.sub(r"`\1`", docstring.partition("\nAttributes:")[0].strip())


if __name__ == "__main__":
    print(page(), end="")
