"""Rounding: every number is rounded once, where it is measured, and all others are computed from
what is shown."""

from __future__ import annotations

import math


def significant(value: float, digits: int = 4) -> float:
    """`value` rounded to so many significant digits; NaN and infinity as they are."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """The quotient to two decimals, None where either number is missing."""
    if not numerator or not denominator:
        return None
    return round(numerator / denominator, 2)
