"""Which routes timed calls took, and how it is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ...planning import counts


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Gives a counter that holds, once the `with` block has ended, how many attention calls took
    which route inside of it; calls of stock attention, past the patch, are none.

    Not by a report, which would have every later call look for its layer, and take longer.
    """
    taken: Counter[str] = Counter()
    before = _by_route()
    yield taken
    taken.update(_by_route() - before)


def _by_route() -> Counter[str]:
    by_route: Counter[str] = Counter()
    for kind, calls in counts.totals().items():
        by_route[kind.route] += calls
    return by_route


def in_words(taken: Mapping[str, int]) -> str | None:
    """`native 92%, cuda_kernel 8%`, the route of most calls first; of one route its name alone, of
    no calls None."""
    if not taken:
        return None
    total = sum(taken.values())
    counted = Counter(taken).most_common()
    if len(counted) == 1:
        return counted[0][0]
    return ", ".join(f"{route} {_percent(calls, total)}" for route, calls in counted)


def _percent(calls: int, total: int) -> str:
    """Never 0% or 100%: one call of many is not none."""
    if 200 * calls < total:
        return "<1%"
    return ">99%" if 200 * (total - calls) < total else f"{100 * calls / total:.0f}%"
