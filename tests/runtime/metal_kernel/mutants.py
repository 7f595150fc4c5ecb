"""What the tests of the Metal kernels would let through: each barrier is removed and each bound of
them is off by one, one at a time, and every such kernel has to fail on some small call.

python tests/runtime/metal_kernel/mutants.py

prints those that did not, and writes how many there were to `mutants.json` beside this file. Twenty
minutes on two cores; Linux alone. Those that change no result are named with the reason.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from attention_cases import Case, expected, make, runner, wide  # noqa: E402
from backends import METAL  # noqa: E402
from metal_kernel import emulated, translation  # noqa: E402

from mlx_flash_runtime.kernels.metal import (  # noqa: E402
    checked,
    few_queries,
    gradient,
    mask_tiles,
    steel,
)
from mlx_flash_runtime.kernels.quantization import Bits  # noqa: E402
from mlx_flash_runtime.planning import machine  # noqa: E402
from mlx_flash_runtime.problem import Problem  # noqa: E402
from mlx_flash_runtime.problem.masks import Window  # noqa: E402
from mlx_flash_runtime.routes import metal_kernel  # noqa: E402

RESULT = HERE / "mutants.json"
SECONDS = 200  # of the processor, for one mutant: a loop that has no end is found out, too
# An index beyond an array of known size ends the program.
BOUNDS = ("-fsanitize=bounds-strict", "-fsanitize-undefined-trap-on-error")

BARRIER = re.compile(r"threadgroup_barrier\([^;]*\);")
BOUND = re.compile(r" (<=|>=|<|>) ")
ONE = re.compile(r" [+-] 1\b(?![./])")
OTHERWISE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}

# Calls that have between them every branch of the kernels, sizes that are no whole tiles, and
# several parts, slices and blocks.
SIZES = {
    "latents": {"head_dim": 72, "value_head_dim": 264},
    "small": {"head_dim": 20, "value_head_dim": 36},
    "64": {"head_dim": 64, "value_head_dim": 64},
}
CASES = [
    (Case(3, 331, heads=6, key_heads=2, batch=2, mask="causal", sinks=True), mx.float32),
    (Case(5, 45, heads=9, key_heads=1, mask=("additive", (1, 9, 5, 45)), **SIZES["small"]), 0),
    (Case(2, 290, mask=("window", (33,)), **SIZES["small"]), mx.float16),
    (Case(1, 65, heads=20, key_heads=2, batch=2, **SIZES["latents"]), mx.float32),
    (Case(70, 102, key_heads=1, mask=("window", (40,)), sinks=True, **SIZES["64"]), mx.float32),
    (Case(64, 64, mask=("segments", (20, 13, 31)), **SIZES["64"]), mx.float16),
    (Case(7, 40, mask=("rows hidden", (7, 40)), head_dim=64, value_head_dim=64), mx.float32),
    (Case(50, 70, batch=2, mask=("bool", (2, 1, 50, 70)), softcap=1.5, **SIZES["64"]), mx.float32),
    (Case(50, 70, mask=("rows hidden", (2, 50, 70)), **SIZES["64"]), mx.float32),
]


# The same of a gradient: keys that no query sees, several query heads for a key head, and batches.
TRAINING = [
    Problem(1, 2, 1, 50, 110, 64, 64, mask="window", structure=Window(40), training=True),
    Problem(2, 1, 1, 70, 70, 96, 64, mask="causal", softcap=1.5, training=True),
    Problem(1, 1, 1, 64, 64, 64, 64, mask="window", structure=Window(33), training=True),
]

# Those that change nothing but what a Mac has to do for it, and why; by a part of their line.
EQUIVALENT = {
    "STEP = COUNT < PER_WORD ? COUNT : PER_WORD": "either is the same where they are equal",
    "is_there = WHOLE || first < end": "what is read there is multiplied by zero or not written",
    "score < HIDDEN && added": "HIDDEN becomes HIDDEN",
    "for (int dim = 0; dim < VALUE_DIMS": "no column there is below `end`",
    "DIMS = (D + 8 * RUN - 1)": "one more chunk, of zeros",
    "row < rows && dim < D": "one more row, of which no result is written",
    "first_row + tile * flash::ROWS >= rows": "a tile without rows, which writes nothing",
    "keys - length - WINDOW + 1": "one more key, which the window hides",
    "(keys - seen + flash::TILE - 1)": "one more tile, without keys",
    "kb * BK < first[last_query]": "a tile is looked at of which nothing is hidden",
    "(tiles + parts - 1) / parts": "longer parts, of which the last have no keys",
    "is_there = row < count": "one more row, which sees nothing and is not written",
    "tile < tiles.stop": "one more tile, of which nothing is seen",
    "left < COLUMNS": "a whole tile, of which each number is asked for",
}


class Mutant(NamedTuple):
    """One change of one text: at that place, what stands there becomes something else."""

    text: str
    start: int
    stop: int
    instead: str

    def __str__(self) -> str:
        whole = TEXTS[self.text]
        line = whole[whole.rfind("\n", 0, self.start) + 1 :].partition("\n")[0]
        was = whole[self.start : self.stop].strip()
        line = line.strip().removeprefix("UNROLL ")
        return f"{self.text}: {line}: {was!r} is {self.instead.strip()!r}"


CHANGES = {"_INTERVALS": steel._INTERVALS, "_TILES": steel._TILES}
TEXTS = {
    "few_queries.metal": few_queries._text("few_queries.metal"),
    "combined.metal": few_queries._text("combined.metal"),
    "gradient.metal": gradient._text(),
    "_BEFORE": gradient._BEFORE,
    "_OF_QUERIES": gradient._OF_QUERIES,
    "_OF_KEYS": gradient._OF_KEYS,
    "_BODY": few_queries._BODY.template,
    "_COMBINED": few_queries._COMBINED.template,
    **{f"{name}[{i}]": one.text for name, all in CHANGES.items() for i, one in enumerate(all)},
}
# Those of a gradient.
IN_TRAINING = ("gradient.metal", "_BEFORE", "_OF_QUERIES", "_OF_KEYS")


def mutants() -> Iterator[Mutant]:
    """All of them, in the order of the texts."""
    for name, text in TEXTS.items():
        for found in BARRIER.finditer(text):
            yield Mutant(name, *found.span(), "")
        for found in BOUND.finditer(text):
            yield Mutant(name, *found.span(), f" {OTHERWISE[found.group(1)]} ")
        for found in ONE.finditer(text):
            yield Mutant(name, *found.span(), "")


def apply(mutant: Mutant) -> None:
    texts = dict(TEXTS)
    text = texts[mutant.text]
    texts[mutant.text] = text[: mutant.start] + mutant.instead + text[mutant.stop :]
    few_queries._text = texts.__getitem__
    few_queries._BODY = Template(texts["_BODY"])
    few_queries._COMBINED = Template(texts["_COMBINED"])
    for name, all in CHANGES.items():
        changed = [one._replace(text=texts[f"{name}[{i}]"]) for i, one in enumerate(all)]
        setattr(steel, name, tuple(changed))
    gradient._text = lambda: texts["gradient.metal"]
    for name in IN_TRAINING[1:]:
        setattr(gradient, name, texts[name])


def is_right() -> bool:
    """Whether the kernels, as they now are, are right in every case."""
    mx.fast.metal_kernel = emulated.metal_kernel
    steel._read = emulated.header
    machine.current_device = lambda: replace(METAL, own_kernel=True)
    checked.is_right = lambda problem: True
    mask_tiles.Looks.hides_enough = lambda *masks: True
    for case, dtype in CASES:
        call = make(case, dtype or mx.bfloat16)
        out = call.function(runner(metal_kernel, None, case.softcap))(*call.primals)
        most = 8 * float(mx.finfo(out.dtype).eps)
        if not (np.abs(wide(out) - expected(call)[0]) <= most).all():
            return False
    # Tiles that are hidden, seen, or in part.
    tiles = Problem(1, 2, 1, 70, 134, 64, 64, "float32", "bool")
    if not checked._error(tiles, None) <= 1e-4:
        return False
    decode = Problem(1, 4, 2, 1, 300, 96, 64, "float32")
    return all(checked._error(decode, Bits(bits, 32)) <= 1e-4 for bits in (4, 8))


def is_right_in_training() -> bool:
    """Whether the kernels of a gradient, as they now are, are right in every case."""
    mx.fast.metal_kernel = emulated.metal_kernel
    steel._read = emulated.header
    return all(checked._error(problem, None) <= 1e-4 for problem in TRAINING)


def survives(work: Callable[[], bool]) -> bool:
    """Whether `work` says yes, in a process of its own that may end in any way."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


def mutated(mutant: Mutant) -> bool:
    apply(mutant)
    return is_right_in_training() if mutant.text in IN_TRAINING else is_right()


def main() -> int:
    translation.FLAGS = (*translation.FLAGS, *BOUNDS)
    translation._precompiled()
    if not (survives(is_right) and survives(is_right_in_training)):
        print("the kernels are wrong as they are")
        return 1
    counts = {"barriers": 0, "bounds": 0}
    alive, same = [], []
    for mutant in mutants():
        counts["bounds" if mutant.instead or "barrier" not in str(mutant) else "barriers"] += 1
        if survives(lambda mutant=mutant: mutated(mutant)):
            reasons = [why for line, why in EQUIVALENT.items() if line in str(mutant)]
            entry = ": ".join([str(mutant), *reasons])
            is_known = bool(reasons) and entry not in same  # of lines that are alike one alone
            (same if is_known else alive).append(entry)
            print(entry, flush=True)
    print(f"{counts}, {len(same)} that change no result, {len(alive)} not found")
    result = {**counts, "change no result": same, "not found": alive}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return len(alive)


if __name__ == "__main__":
    sys.exit(main())
