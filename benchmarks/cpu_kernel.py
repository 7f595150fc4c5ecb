"""The CPU kernel against MLX's own attention and against NumPy's matrix products, with the targets
it was built for.

    python benchmarks/cpu_kernel.py [--only PART] [--json FILE]

Parts: small, short, speed, training, decode, memory, scripts. Takes about 3 minutes on two cores,
which nothing else should use. Writes benchmarks/results/cpu_kernel.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import mlx.core as mx
from store import RESULTS, Result

from mlx_flash_runtime import stock
from mlx_flash_runtime.kernels.cpu import library
from mlx_flash_runtime.kernels.cpu.build import build
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import MaskKind, Problem
from mlx_flash_runtime.routes import cpu_kernel
from mlx_flash_runtime.tools.bench.check import need_right, run_phase
from mlx_flash_runtime.tools.bench.inputs import make_inputs
from mlx_flash_runtime.tools.bench.numbers import significant
from mlx_flash_runtime.tools.bench.timing import peak_memory, side_by_side

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
HEADS = 8
PHASES = ("forward", "training")
DEFINITIONS = (
    "8 heads; the kernel's results, in training the gradients too, are first held against float64 "
    "attention: within twice, in training three times, the error of plain attention in their "
    "type. Ms is the median of interleaved calls, speedup MLX's median over the kernel's.",
    "gflops counts both products of the forward pass, of a causal mask only the seen half; "
    "numpy_gflops is that of float32 products of two 2,048 x 2,048 matrices in a process of its "
    "own, right before and after.",
    "kernel_mib is the peak beyond the inputs. Scripts run as processes, patched, with and without "
    "`--disable-flash-attention`.",
)
Row = dict[str, Any]
_NUMPY = """
import time, numpy as np
a, b = (np.random.default_rng(i).standard_normal((2048, 2048), dtype=np.float32) for i in (0, 1))
a @ b
times = []
while sum(times) < 0.6 or len(times) < 5:
    start = time.perf_counter()
    a @ b
    times.append(time.perf_counter() - start)
print(2e-9 * 2048**3 / sorted(times)[len(times) // 2])
"""


def row(
    part: str, call: str, dtype: str = "float32", target: str = "", **numbers: float | None
) -> Row:
    """One line of the table: every column, those that were not measured as None."""
    columns = ("mlx_ms", "kernel_ms", "speedup", "gflops", "numpy_gflops", "share", "kernel_mib")
    rounded: dict[str, float | None] = dict.fromkeys(columns)
    for name, number in numbers.items():
        rounded[name] = None if number is None else significant(number)
    return {"part": part, "call": call, "dtype": dtype, **rounded, "target": target}


def problem_of(
    batch: int,
    queries: int,
    keys: int,
    dim: int,
    dtype: str = "float32",
    mask: MaskKind = "none",
    training: bool = False,
) -> Problem:
    shape = (batch, HEADS, HEADS, queries, keys, dim, dim)
    return Problem(*shape, dtype=dtype, mask=mask, training=training)


def attentions(problem: Problem) -> dict[str, Callable[[], Any]]:
    """MLX's own function and the kernel on random q, k and v, in training with the gradients; once
    the kernel's results were found to be right."""
    inputs = make_inputs(problem)
    arguments = {"scale": inputs.scale, "mask": inputs.mask, "sinks": None}
    kernel = partial(cpu_kernel.launch(problem, current_device(), None), **arguments)
    need_right(problem, inputs, {"kernel": kernel})
    attends = {"mlx": partial(stock.attention, **arguments), "kernel": kernel}
    runs = {}
    for name, attend in attends.items():
        runs[name] = partial(run_phase, problem, attend, inputs, inputs.cotangent)
    return runs


def compared(problem: Problem, seconds: float) -> dict[str, float]:
    """`mlx_ms`, `kernel_ms` and `speedup`."""
    runs = attentions(problem)
    chains = {name: partial(repeat, run) for name, run in runs.items()}
    timed = side_by_side(chains, region=0.005, limit=seconds, rounds=15).timings
    return speedup(1e3 * timed["mlx"].median, 1e3 * timed["kernel"].median)


def repeat(run: Callable[[], Any], calls: int) -> list[Any]:
    return [run() for _ in range(calls)]


def speedup(mlx_ms: float, kernel_ms: float) -> dict[str, float]:
    return {"mlx_ms": mlx_ms, "kernel_ms": kernel_ms, "speedup": mlx_ms / kernel_ms}


def small() -> Iterator[Row]:
    """The eight configurations of the small grid."""
    for dtype, target in (("float32", "speedup 20"), ("bfloat16", "speedup 15")):
        for batch, length, dim in product((1, 2), (64, 128), (32, 64)):
            problem = problem_of(batch, length, length, dim, dtype)
            call = f"batch {batch}, L {length}, D {dim}"
            yield row("small", call, dtype, target, **compared(problem, 3))


def short() -> Iterator[Row]:
    """Many short sequences, as of attention over time or along an axis: forward and with the
    gradients."""
    for batch, length in ((2048, 3), (1024, 8), (256, 16)):
        for phase in PHASES:
            problem = problem_of(batch, length, length, 64, training=phase == "training")
            call = f"batch {batch}, L {length}, D 64, {phase}"
            yield row("short", call, target="speedup 1", **compared(problem, 3))


def speed() -> Iterator[Row]:
    """Floating point operations per second, against those of NumPy."""
    masks: tuple[MaskKind, ...] = ("none", "causal")
    for length, dim, mask in product((1024, 4096), (64, 128), masks):
        run = attentions(problem_of(1, length, length, dim, mask=mask))["kernel"]
        mx.eval(run())
        before = numpy_gflops()
        seconds = []
        while sum(seconds) < 1.5 or len(seconds) < 5:
            start = time.perf_counter()
            mx.eval(run())
            seconds.append(time.perf_counter() - start)
        products = statistics.median([before, numpy_gflops()])
        operations = 4 * HEADS * length**2 * dim / (2 if mask == "causal" else 1)
        own = 1e-9 * operations / statistics.median(seconds)
        numbers = {
            "kernel_ms": 1e3 * statistics.median(seconds),
            "gflops": own,
            "numpy_gflops": products,
            "share": own / products,
        }
        call = f"L {length}, D {dim}, {_in_words(mask)}"
        yield row("speed", call, target="share 0.6", **numbers)


def _in_words(mask: MaskKind) -> str:
    return "dense" if mask == "none" else mask


def numpy_gflops() -> float:
    """NumPy's, as it chooses its BLAS kernels itself."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    done = subprocess.run(
        [sys.executable, "-c", _NUMPY], env=own, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def training() -> Iterator[Row]:
    """Forward and backward."""
    masks: tuple[MaskKind, ...] = ("none", "causal")
    for dtype, mask in product(("float32", "bfloat16"), masks):
        problem = problem_of(1, 1024, 1024, 64, dtype, mask, training=True)
        target = "speedup 20" if dtype == "float32" else ""
        call = f"L 1024, D 64, {_in_words(mask)}"
        yield row("training", call, dtype, target, **compared(problem, 12))


def decode() -> Iterator[Row]:
    """A query or few over a long cache."""
    for dtype, queries in product(("float32", "bfloat16"), (1, 8)):
        problem = problem_of(1, queries, 8192, 64, dtype, "causal")
        call = f"{queries} queries, 8192 keys, D 64"
        yield row("decode", call, dtype, "speedup 5", **compared(problem, 4))


def memory() -> Iterator[Row]:
    """The peak by length."""
    for phase, length in product(PHASES, (1024, 2048, 4096)):
        training = phase == "training"
        problem = problem_of(1, length, length, 64, mask="causal", training=training)
        mebibytes = peak_memory(attentions(problem)["kernel"]) / 2**20
        call = f"{phase}, L {length}, D 64, causal"
        yield row("memory", call, target="linear in L", kernel_mib=mebibytes)


def scripts() -> Iterator[Row]:
    """LoRA and chat of the example scripts on the tiny models, from start to end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repo = folder / "repo"
        shutil.copytree(FIXTURES / "mlx_scripts", repo)
        for command in (
            [sys.executable, FIXTURES / "tiny_models.py", folder],
            [sys.executable, "-m", "flash_integrate", repo],
        ):
            subprocess.run(command, check=True, capture_output=True)
        lora = (
            f"--model {folder}/llama --data {folder}/data --adapter-path {folder}/adapters "
            "--batch-size 4 --iters 20"
        )
        chat = f"--model {folder}/gemma --max-tokens 64"
        said = "Tell me a story.\nAnd another one.\nThank you.\n"
        for title, script, arguments, typed in (
            ("lora_finetune.py, 20 steps", "fine_tuning_utils/mlx/lora_finetune.py", lora, ""),
            ("chat_cli.py, 3 turns", "chat_interfaces/mlx/cli/chat_cli.py", chat, said),
        ):
            command = [sys.executable, str(repo / script), *arguments.split()]
            numbers = _both_ways(command, typed, folder)
            yield row("scripts", title, "as the model", "whatever it is", **numbers)


def _both_ways(command: list[str], typed: str, folder: Path) -> dict[str, float]:
    """A script with the kernel and on MLX's own attention, in turns."""
    ways = {"kernel": command, "mlx": [*command, "--disable-flash-attention"]}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(6):
        for way, words in ways.items():
            start = time.perf_counter()
            subprocess.run(
                words, input=typed, text=True, check=True, capture_output=True, cwd=folder
            )
            seconds[way].append(time.perf_counter() - start)
    # The first run of each compiles what MLX compiles.
    ms = {way: 1e3 * statistics.median(of[1:]) for way, of in seconds.items()}
    return speedup(ms["mlx"], ms["kernel"])


PARTS = {part.__name__: part for part in (small, short, speed, training, decode, memory, scripts)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, help="one part, which is printed and not written")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "cpu_kernel.json")
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    build()
    assert library.is_ready()
    result = Result(
        args.json.absolute(),
        title="The CPU kernel",
        command="python benchmarks/cpu_kernel.py",
        definitions=DEFINITIONS,
    )
    for name, part in PARTS.items():
        if args.only in (None, name):
            for each in part():
                if args.only is None:
                    result.add(each)
                words = [f"{key} {value}" for key, value in each.items() if value not in (None, "")]
                print("  ".join(words), flush=True)
    if args.only is None:
        print(f"written: {result.path}")


if __name__ == "__main__":
    main()
