"""Scripts that run in the environments of the peers can't be imported in ours."""

from __future__ import annotations

collect_ignore = ["obp_digits.py", "obp_golden.py", "obp_library.py", "vw_golden.py"]
