"""Bins of seconds: fine enough to tell quantiles within 5 %, few enough to be kept by the hour for years; pure.

A bin is an eighth of a doubling. What is kept is how many jobs fell into each, so hours add up to days without their jobs.
"""

from typing import Final

PER_DOUBLING: Final = 8
#: Shorter times count as this, seconds.
SHORTEST: Final = 0.001


def bin_of(seconds: str) -> str:
    """Return the SQL expression of the bin that a number of seconds falls into, null for null."""
    # Not `greatest`, for which null is less than anything.
    bounded = f"case when {seconds} < {SHORTEST} then {SHORTEST} else {seconds} end"
    return f"round({PER_DOUBLING} * ln(({bounded})::float8) / ln(2.0::float8))::int"


def seconds_of(bin_number: int) -> float:
    """Return the middle of a bin, seconds."""
    return float(2.0 ** (bin_number / PER_DOUBLING))
