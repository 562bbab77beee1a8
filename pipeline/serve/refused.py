"""Why a request is not taken: the field, and what is wrong with it."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):
    """A part of a request that cannot be used; the answer is a 4xx that names it.

    Attributes:
        field: its name.
        why: what is wrong, the value, and what was expected.
        status: of the answer.
    """

    def __init__(self, field: str, why: str, status: int = 422) -> None:
        super().__init__(f"{field} {why}")
        self.field, self.why, self.status = field, why, status

    def to_dict(self) -> dict[str, object]:
        """Return the body of the answer, in the shape that the native endpoint has for its own refusals."""
        return {"detail": [{"loc": ["body", self.field], "msg": self.why, "type": "value_error"}]}
