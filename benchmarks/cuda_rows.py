"""The command of a script that measures a row a problem on CUDA.

Such a script has a TITLE, DEFINITIONS, `problems()` and `measured(problem, args)`, which gives a
row; it may have `options(parser)` for arguments of its own, and NEEDS, a package that has to be
there.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
from store import Result, parser_of, place

from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.tools.bench.check import WrongResult

# Scores of the float64 truth of a row, for `need_right`: the CPU takes half a second for so many,
# and there are hundreds of rows.
CHECKED_SCORES = 2**20
_STRIDE = 5


def measure_all(script: ModuleType) -> None:
    """Prints each row, and writes them; exits with 1 where a result is wrong, or there is none: it
    has no row."""
    name = Path(str(script.__file__)).stem
    args, chosen = _arguments(script)
    command = f"python benchmarks/{name}.py {args.machine}"
    result = Result(
        place(args, name), title=script.TITLE, command=command, definitions=script.DEFINITIONS
    )
    rows: dict[int, dict[str, Any]] = {}
    wrong = False
    for number in spread(len(chosen)):
        try:
            rows[number] = script.measured(chosen[number], args)
        except WrongResult as error:
            print(f"WRONG, left out: {error}", file=sys.stderr)
            wrong = True
        except RuntimeError as error:  # of MLX, for want of memory perhaps
            print(f"FAILED, left out: {chosen[number]}: {error}", file=sys.stderr)
            wrong = True
        else:
            print(" ".join(f"{key} {value}" for key, value in rows[number].items()), flush=True)
            result.rows[:] = [rows[each] for each in sorted(rows)]
            result.write()
        mx.clear_cache()
    print(f"written: {result.path}")
    if wrong:
        sys.exit(1)


def spread(count: int) -> list[int]:
    """The numbers below `count` in an order in which those so far are spread over all of them:
    what is interrupted has rows of every kind."""
    return [number for start in range(_STRIDE) for number in range(start, count, _STRIDE)]


def _arguments(script: ModuleType) -> tuple[argparse.Namespace, list[Problem]]:
    """The arguments, and the problems that they choose."""
    parser = parser_of(script.__doc__)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="problems whose words have this in them"
    )
    parser.add_argument("--rounds", type=int, default=12, metavar="N")
    if hasattr(script, "options"):
        script.options(parser)
    args = parser.parse_args()
    if current_device().backend != "cuda":
        parser.error(f"it measures a kernel for CUDA, and the device is {current_device().backend}")
    needed = getattr(script, "NEEDS", None)
    if needed is not None and find_spec(needed) is None:
        parser.error(f"it needs {needed}: pip install {needed}")
    problems: list[Problem] = list(script.problems())
    chosen = [problem for problem in problems if args.only in str(problem)]
    if not chosen:
        parser.error(f"no problem has {args.only!r} in its words: {'; '.join(map(str, problems))}")
    return args, chosen
