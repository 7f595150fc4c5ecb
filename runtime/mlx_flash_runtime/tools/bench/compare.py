"""What runs of a script with and without flash attention come to: what it gained, and how sure
that is."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import Any

from . import agreement
from .numbers import ratio, significant
from .processes import Outcome
from .scripts import MODES, WARM_UPS

Row = dict[str, Any]
# The mode and the outcome of each run, in their order.
Outcomes = Sequence[tuple[str, Outcome]]


def timed(outcomes: Outcomes) -> Outcomes:
    """Those that are not warm-ups."""
    return outcomes[WARM_UPS * len(MODES) :]


def rows_of(outcomes: Outcomes) -> list[Row]:
    """One row per timed run."""
    rows: list[Row] = []
    for number, (mode, outcome) in enumerate(timed(outcomes)):
        assert outcome.report is not None  # or the run would not have counted
        routes = [f"{name} {calls}" for name, calls in outcome.report["routes"].items()]
        rows.append(
            {
                "run": number // len(MODES) + 1,
                "mode": mode,
                "seconds": significant(outcome.seconds),
                "peak_mib": significant(outcome.peak_bytes / 2**20),
                "mlx_peak_mib": significant(_mlx_peak(outcome)),
                "routes": ", ".join(routes),
            }
        )
    return rows


def summary_of(outcomes: Outcomes) -> list[Row]:
    """One row per measured quantity: seconds, memory, and each line of the output that tells
    tokens per second."""
    ours, stock = (_of_mode(mode, timed(outcomes)) for mode in MODES)
    rows = [
        _quantity("seconds", _seconds(ours), _seconds(stock)),
        _quantity("peak MiB", _peaks(ours), _peaks(stock)),
        _quantity("peak MiB of MLX", list(map(_mlx_peak, ours)), list(map(_mlx_peak, stock))),
    ]
    our_speeds, stock_speeds = _speeds(ours), _speeds(stock)
    for line in our_speeds[0]:
        if all(line in speeds for speeds in our_speeds + stock_speeds):
            own = [statistics.median(speeds[line]) for speeds in our_speeds]
            others = [statistics.median(speeds[line]) for speeds in stock_speeds]
            name = _name_of(line, [*our_speeds[0]])
            rows.append(_quantity(name, own, others, more_is_better=True))
    return rows


def _name_of(line: str, lines: Sequence[str]) -> str:
    """A row's name: of the line, whose numbers are `#`, the words before the first of them if no
    other line has the same."""
    first = [each.partition("#")[0].strip(" :,=(") for each in lines]
    words = line.partition("#")[0].strip(" :,=(")
    if first.count(words) > 1 or not words:
        words = line.replace("#", "N")
    return f"tokens/s: {words}" if words else "tokens/s"


def _of_mode(mode: str, outcomes: Outcomes) -> list[Outcome]:
    return [outcome for own, outcome in outcomes if own == mode]


def _seconds(outcomes: list[Outcome]) -> list[float]:
    return [outcome.seconds for outcome in outcomes]


def _peaks(outcomes: list[Outcome]) -> list[float]:
    return [outcome.peak_bytes / 2**20 for outcome in outcomes]


def _mlx_peak(outcome: Outcome) -> float:
    assert outcome.report is not None
    return float(outcome.report["peak_memory"] / 2**20)


def _speeds(outcomes: list[Outcome]) -> list[dict[str, list[float]]]:
    return [agreement.speeds(f"{outcome.stdout}\n{outcome.stderr}") for outcome in outcomes]


def _quantity(
    name: str, ours: list[float], stock: list[float], *, more_is_better: bool = False
) -> Row:
    our_median, stock_median = (significant(statistics.median(of)) for of in (ours, stock))
    if more_is_better:
        gain, (low, high) = ratio(our_median, stock_median), interval(ours, stock)
    else:
        gain, (low, high) = ratio(stock_median, our_median), interval(stock, ours)
    return {
        "quantity": name,
        "ours": our_median,
        "stock": stock_median,
        "gain": gain,
        "low": low,
        "high": high,
    }


_RESAMPLES = 2000
# In simulation, with a machine that drifts and one that does not, the interval holds the true
# ratio in 93 to 98 % of cases from five runs on, in fewer than 90 % with three.
FEWEST_RUNS = 5


def interval(better: Sequence[float], worse: Sequence[float]) -> tuple[float | None, float | None]:
    """The 95 % interval of the ratio of the medians of `better` over `worse`; None with fewer than
    FEWEST_RUNS.

    By the percentile bootstrap over rounds: a run and the one of the other kind next to it are
    drawn together, so that a machine that gets slower or faster meanwhile does not widen it.
    """
    runs = len(better)
    if runs < FEWEST_RUNS or min(*better, *worse) <= 0:
        return None, None
    draw = random.Random(0)
    ratios = []
    for _ in range(_RESAMPLES):
        rounds = draw.choices(range(runs), k=runs)
        better_median = statistics.median(better[i] for i in rounds)
        ratios.append(better_median / statistics.median(worse[i] for i in rounds))
    ratios.sort()
    return round(ratios[int(0.025 * _RESAMPLES)], 3), round(ratios[int(0.975 * _RESAMPLES)], 3)


def verdict(seconds: Row) -> str:
    """What the row of the seconds comes to, in a sentence."""
    gain, low, high = seconds["gain"], seconds["low"], seconds["high"]
    if low is None:
        return (
            f"{_in_words(gain)} with flash attention; how sure that is takes {FEWEST_RUNS} runs or "
            "more to say"
        )
    sure = "with 95 % confidence between"
    if low <= 1 <= high:
        return f"no difference shown: {sure} {_in_words(low)} and {_in_words(high)}"
    least, most = (low, high) if low > 1 else (1 / high, 1 / low)
    return f"{_in_words(gain)} with flash attention; {sure} {least:.2f}× and {most:.2f}×"


def _in_words(gain: float) -> str:
    """`1.25× faster`; of a gain below 1 its inverse, `1.09× slower`."""
    faster, slower = f"{gain:.2f}", f"{1 / gain:.2f}"
    if faster == "1.00" or slower == "1.00":
        return "as fast"
    return f"{faster}× faster" if gain > 1 else f"{slower}× slower"


def routes_of(outcomes: Outcomes) -> str:
    """What the runtime reports of the last run with flash attention: calls by phase and route, and
    why."""
    report = _of_mode("ours", outcomes)[-1].report
    assert report is not None
    lines = []
    for phase, part in report["phases"].items():
        for one in part["reasons"]:
            lines.append(f"  {phase}: {one['route']} {one['calls']}: {one['reason']}")
    if not lines:
        return (
            "no attention call went through MLX's function: there is nothing for flash attention "
            "to run"
        )
    return "\n".join(["its attention calls, by phase and route:", *lines])


def agreement_of(outcomes: Outcomes) -> agreement.Agreement:
    """Whether the runs of the two modes printed the same, on stdout; on stderr where stdout stays
    empty."""
    ours, stock = (_of_mode(mode, outcomes) for mode in MODES)
    prints = any(outcome.stdout.strip() for outcome in ours + stock)

    def texts(outcomes: list[Outcome]) -> list[str]:
        return [outcome.stdout if prints else outcome.stderr for outcome in outcomes]

    return agreement.compare(texts(ours), texts(stock))
