"""The Open Bandit Pipeline on any Python, without the libraries that it only draws pictures and trains networks with.

Runs in the peer's environment; it imports nothing of ours. Of torch, matplotlib and seaborn, obp takes names when it is
imported and uses nothing in its estimators. They are put in their place while it is imported, and taken away after.
"""

from __future__ import annotations

import sys
from operator import attrgetter
from types import ModuleType
from unittest.mock import MagicMock

__all__ = ["obp"]

UNUSED = (
    "matplotlib", "matplotlib.pyplot", "seaborn", "torch", "torch.nn", "torch.nn.functional", "torch.optim",
    "torch.utils", "torch.utils.data",
)  # fmt: skip


def _import_obp() -> ModuleType:
    instead = MagicMock()
    # obp derives classes of its own from these.
    instead.torch.utils.data.Dataset = instead.torch.nn.Module = object
    sys.modules.update({name: attrgetter(name)(instead) for name in UNUSED})
    try:
        import obp
        import obp.dataset
        import obp.ope
    finally:
        for name in UNUSED:
            del sys.modules[name]
    return obp


obp = _import_obp()
