"""Why a row is refused: one code each, the same in every format, so that rejects can be counted and compared."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason"]


class Reason(StrEnum):
    """The codes in `rejects.reason`; the sentence in `rejects.detail` names the field and the value.

    >>> str(Reason.BAD_JSON)
    'bad-json'
    """

    #: Text that cannot be read as what the format says it is.
    BAD_JSON = "bad-json"
    BAD_TEXT = "bad-text"  # a line that should match the format's pattern and does not
    NOT_UTF8 = "not-utf8"
    TOO_LONG = "line-too-long"
    FIELD_COUNT = "field-count"  # a CSV line with more or fewer fields than its header

    #: A field that is not there, or not of its kind.
    MISSING = "missing-key"
    WRONG_TYPE = "wrong-type"
    NOT_FINITE = "not-finite"  # NaN, infinity, or too large a number
    SENTINEL = "sentinel"  # a value that stands for "not known", such as -9999
    WRONG_VALUE = "wrong-value"  # of the right type, outside what the field may say

    #: A number that cannot be what its unit says.
    NEGATIVE_LATENCY = "negative-latency"
    NEGATIVE_COUNT = "negative-count"
    OUT_OF_UNIT = "unit-out-of-range"  # 73 where 0-1 is expected, seconds where milliseconds are declared
    BACKWARDS = "time-backwards"  # a first token before its request, an end before its start

    #: Fields that contradict each other, or other rows.
    DUPLICATE = "duplicate-id"
    CHOSEN_UNKNOWN = "chosen-not-candidate"
    CANDIDATE_TWICE = "candidate-twice"
    PROBABILITY_SUM = "probability-sum"
    BLOCKS_UNFIT = "blocks-do-not-fit"
    NO_PARTNER = "no-partner"  # a line of a joined log whose other half is not there
