"""What becomes of a row that sees no key: there implementations differ."""

from __future__ import annotations

import math
from typing import Any

from flash_codemods.handwritten.proving.cases import UNFIT, Case
from flash_codemods.handwritten.proving.comparison import TYPES, arrays
from flash_codemods.handwritten.proving.missing import NotEvaluable
from flash_codemods.handwritten.proving.versions import Version


def unseen_row(mx: Any, old: Version, new: Version, case: Case, seed: int) -> str | None:
    """What both versions give for a row that sees no key; None where no mask of the case can hide
    one."""
    hiding = [key for key, made in case.inputs.items() if made.kind in ("seen", "hides", "marks")]
    if len(hiding) != 1:
        return None
    (key,) = hiding
    is_bias = case.inputs[key].kind == "hides"
    # A bool mask may say which keys are seen, or which are hidden.
    for fill in (-math.inf,) if is_bias else (0, 1):
        given = {}
        for kind in TYPES:
            inputs = arrays(mx, case.inputs, kind, seed)
            given[kind] = {**inputs, key: mx.full(inputs[key].shape, fill, inputs[key].dtype)}
        try:
            if _sees_no_key(mx, old, case, given["float32"]):
                rows = {kind: _rows(mx, old, new, inputs) for kind, inputs in given.items()}
                subject = "mask is minus infinity everywhere" if is_bias else "keys are all masked"
                return f"a query whose {subject} gives {_said(rows)}"
        except (NotEvaluable, *UNFIT):
            return None
    return None


def _said(rows: dict[str, tuple[str, str]]) -> str:
    """What comes in float32, and in the types in which something else does."""
    usual = rows["float32"]
    parts = [_of_type(*usual)]
    for before, after in dict.fromkeys(rows.values()):
        kinds = [kind for kind, row in rows.items() if row == (before, after)]
        if (before, after) != usual:
            parts.append(f"in {' and '.join(kinds)} {_of_type(before, after)}")
    return "; ".join(parts)


def _of_type(before: str, after: str) -> str:
    return f"{after}, as before" if before == after else f"{after}, not {before} as before"


def _rows(mx: Any, old: Version, new: Version, inputs: dict[str, Any]) -> tuple[str, str]:
    """What a row that sees no key gives by hand, and from the fused call."""
    return _kind_of_row(_numbers(mx, old, inputs)), _kind_of_row(_numbers(mx, new, inputs))


def _sees_no_key(mx: Any, version: Version, case: Case, inputs: dict[str, Any]) -> bool:
    """Whether no query sees a key: then the result does not depend on the queries, the first of
    the arrays."""
    query = next(key for key, made in case.inputs.items() if made.kind == "array")
    others = {**inputs, query: inputs[query] * 2}
    one, other = (version.run(mx, given)[0] for given in (inputs, others))
    return bool(mx.array_equal(one, other, equal_nan=True).item())


def _numbers(mx: Any, version: Version, inputs: dict[str, Any]) -> list[float]:
    found: list[float] = version.run(mx, inputs)[0].astype(mx.float32).reshape(-1).tolist()
    return found


def _kind_of_row(values: list[float]) -> str:
    if any(math.isnan(value) for value in values):
        return "NaN"
    if all(value == 0 for value in values):
        return "zeros"
    return "the mean of the values"
