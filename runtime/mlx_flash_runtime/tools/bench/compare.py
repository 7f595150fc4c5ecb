"""A script with and without flash attention, in turns, as processes: what it gained, and how sure
that is."""

from __future__ import annotations

import random
import shlex
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import agreement, processes
from .numbers import ratio, significant
from .processes import Outcome
from .timing import turns

FLAG = "--disable-flash-attention"
MODES = ("ours", "stock")
WARM_UPS = 1

Row = dict[str, Any]
# The mode and the outcome of each run, in their order.
Outcomes = Sequence[tuple[str, Outcome]]


class ScriptFailed(Exception):
    """The script did not end as it should; the message says how, and its last words."""


class NotPatched(Exception):
    """The script never called `enable_flash_attention`, so that there is nothing to switch."""


@dataclass(frozen=True)
class Script:
    """A command line that runs a Python script. `name` is the script's as it was given. `switch` is
    where the flag goes, None where the environment alone switches: the script's text does not have
    the flag."""

    command: tuple[str, ...]
    name: str
    switch: int | None

    def without(self) -> list[str]:
        """The command line with flash attention disabled."""
        command = list(self.command)
        if self.switch is not None:
            command.insert(self.switch, FLAG)
        return command


def find_script(command: Sequence[str]) -> Script:
    """The script of a command line: its first word that names a .py file.

    Raises FileNotFoundError where there is no such file, and for a notebook.
    """
    for index, word in enumerate(command):
        if word.endswith(".ipynb"):
            raise FileNotFoundError(f"{word} is a notebook; compare runs scripts")
        if word.endswith(".py"):
            path = Path(word)
            if not path.is_file():
                raise FileNotFoundError(f"{word}: no such file")
            has_flag = FLAG in path.read_text(encoding="utf-8", errors="replace")
            # Straight after the script: in front of a subcommand of its own.
            return Script(tuple(command), word, index + 1 if has_flag else None)
    return Script(tuple(command), command[0], None)


def need_program(name: str) -> None:
    """Raises FileNotFoundError where there is no program of that name."""
    if shutil.which(name) is None:
        advice = f"; a script runs as python {name}" if name.endswith(".py") else ""
        raise FileNotFoundError(f"{name} cannot be run: no such program{advice}")


def measure(
    script: Script,
    runs: int,
    *,
    stdin: Path | None,
    timeout: float,
    client: Sequence[str] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, Outcome]]:
    """The outcomes of `runs` runs of each mode, in turns, after WARM_UPS of each, which fill
    caches and are not timed: MLX compiles kernels for each kind of attention. Their outputs count:
    they come first.

    Raises NotPatched, ScriptFailed.
    """
    for mode in turns(MODES, WARM_UPS + runs):
        command = script.without() if mode == "stock" else list(script.command)
        try:
            outcome = processes.run(
                command, disabled=mode == "stock", stdin=stdin, timeout=timeout, client=client
            )
        except processes.TimedOut:
            raise ScriptFailed(
                f"{script.name} did not end within {timeout:g} s and was ended. A server ends "
                "after its --client COMMAND; --stdin FILE gives an input that ends, --timeout more "
                "time"
            ) from None
        except OSError as error:
            raise ScriptFailed(
                f"{error.filename or command[0]} cannot be run: {error.strerror}"
            ) from error
        _check(script, mode, outcome)
        progress()
        yield mode, outcome


def _check(script: Script, mode: str, outcome: Outcome) -> None:
    if outcome.returncode:
        raise ScriptFailed(_failure(script, mode, outcome))
    if outcome.report is None:
        patch_it = f". Patch it: flash-integrate {shlex.quote(script.name)}"
        advice = patch_it if script.name.endswith(".py") else ""
        raise NotPatched(
            f"{script.name} did not enable flash attention: it is not patched, or the runtime is "
            f"not installed for its Python{advice}"
        )
    if mode != "stock" and not outcome.report["enabled"]:
        raise NotPatched(
            f"{script.name} ran with flash attention off: its command line or this MLX turns it off"
        )


def _failure(script: Script, mode: str, outcome: Outcome) -> str:
    """How a run ended that failed, and its last words."""
    status = outcome.returncode
    how = f"status {status}" if status > 0 else f"signal {-status}"
    words = outcome.stderr.strip() or outcome.stdout.strip() or "(it printed nothing)"
    last = "\n".join(f"  {line}" for line in words.splitlines()[-5:])
    which = "without flash attention" if mode == "stock" else "with flash attention"
    who = f"the client of {script.name}" if outcome.client_failed else script.name
    return f"{who} ended with {how}, {which}:\n{last}"


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
            medians = [
                [statistics.median(speeds[line]) for speeds in of_mode]
                for of_mode in (our_speeds, stock_speeds)
            ]
            name = f"tokens/s: {line}" if line else "tokens/s"
            rows.append(_quantity(name, *medians, more_is_better=True))
    return rows


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
    if any(outcome.stdout.strip() for outcome in ours + stock):
        texts = [[outcome.stdout for outcome in of_mode] for of_mode in (ours, stock)]
    else:
        texts = [[outcome.stderr for outcome in of_mode] for of_mode in (ours, stock)]
    return agreement.compare(*texts)
