"""How fast and how small the replay is, beside its fastest peer: ``python tests/bench/replay_speed.py [a … h]``.

Without letters all sections run: (a) in the loop, (b) beside the peer, (c) whole processes of 100,000 requests, (d) the
Mooncake trace, (e) a million requests, (f) the learned policy, (g) a policy in plain Python, (h) start-up. All on one
core; each figure is the median of several runs, by the wall clock and by processor time. ``--write docs/speed.md``
writes what it prints into a page.

The peer is `ai-dynamo-runtime`, which pip installs into an environment of its own the first time (``--peer FOLDER``
names another place, ``--no-peer`` leaves it out). Where it cannot be had, or a real log is absent, a line says so.
"""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from peer_replay import PACKAGE, default_home
from replay_bench import Bench
from replay_sections import SECTIONS

HEAD = """# How fast the replay is

Printed by `python tests/bench/replay_speed.py --write docs/speed.md`: one core, medians of {runs} runs, by the wall
clock and by processor time (user and system). Lodestar is compiled, its machine code cached. The peer is the offline
replay of `{peer}`. *Poisson* is a generated workload: lognormal prompts of 954 tokens in the mean
(at most 3000), 188 output tokens, 27 % of the prompt tokens in 40 shared prefixes of Zipf's popularity; its engines are
the preset `h100-llama-3.1-8b`. Targets are judged by processor time, which a machine that others use does not stretch;
on a quiet one both clocks agree.

Measured with Python {python}, Numba {numba} and NumPy {numpy} on {machine}, of which one core was used.
"""


def page_head(runs: int) -> str:
    """Say how the figures came about."""
    return HEAD.format(
        runs=runs,
        peer=PACKAGE,
        python=platform.python_version(),
        machine=f"a shared machine of {os.cpu_count()} {platform.machine()} cores",
        **{name: version(name) for name in ("numba", "numpy")},
    )


def use_one_core() -> None:
    """Keep this process and its children on one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> None:
    """Run the sections that are asked for, and print each as it ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], metavar="a-h", help="all, if none is named")
    parser.add_argument("--runs", type=int, default=5, help="runs of each figure (default 5)")
    parser.add_argument("--peer", type=Path, default=default_home(), help="the peer's environment")
    parser.add_argument("--no-peer", action="store_true", help="measure Lodestar alone")
    parser.add_argument("--write", type=Path, help="a page to write, as docs/speed.md")
    asked = parser.parse_args()
    use_one_core()
    text = page_head(asked.runs)
    print(text, flush=True)
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asked.runs, None if asked.no_peer else asked.peer)
        for letter in asked.sections or SECTIONS:
            section = str(SECTIONS[letter](bench))
            print(section, flush=True)
            text += f"\n{section}"
    if asked.write:
        asked.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
