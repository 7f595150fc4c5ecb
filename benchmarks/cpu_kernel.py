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
from store import RESULTS, write

from mlx_flash_runtime import stock
from mlx_flash_runtime.kernels.cpu import library
from mlx_flash_runtime.kernels.cpu.build import build
from mlx_flash_runtime.problem import Call, Problem
from mlx_flash_runtime.routes import cpu_kernel
from mlx_flash_runtime.tools.bench.timing import calibrated, interleaved, peak_memory

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
HEADS = 8
DEFINITIONS = (
    "8 heads; ms is the median of interleaved calls, speedup MLX's median over the kernel's.",
    "gflops counts both products of the forward pass, of a causal mask only the seen half; numpy_gflops is that of "
    "float32 products of two 2,048 x 2,048 matrices in a process of its own, right before and after.",
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
    rounded = {
        name: None if numbers.get(name) is None else float(f"{numbers[name]:.4g}")
        for name in columns
    }
    return {"part": part, "call": call, "dtype": dtype, **rounded, "target": target}


def arrays(batch: int, queries: int, keys: int, dim: int, dtype: str) -> list[mx.array]:
    """Random q, k, v."""
    made = [mx.random.normal((batch, HEADS, length, dim)) for length in (queries, keys, keys)]
    made = [x.astype(getattr(mx, dtype)) for x in made]
    mx.eval(made)
    return made


def attentions(mask: str | None, inputs: list[mx.array]) -> dict[str, Callable[..., mx.array]]:
    """MLX's own function and the kernel, of q, k, v like `inputs`."""
    problem = Problem.of(*inputs, mask)  # once, as the planner does
    assert problem is not None

    def kernel(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return cpu_kernel.run(Call(problem, q, k, v, q.shape[-1] ** -0.5), None)

    return {
        "mlx": lambda q, k, v: stock.attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask),
        "kernel": kernel,
    }


def compared(runs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """`mlx_ms`, `kernel_ms` and `speedup`, after the results were found to agree."""
    own, other = (mx.eval(result) or result for result in (runs["kernel"](), runs["mlx"]()))
    for x, y in zip(*([z] if isinstance(z, mx.array) else z for z in (own, other)), strict=True):
        size = mx.abs(y).max().item()
        assert mx.abs(x.astype(mx.float32) - y.astype(mx.float32)).max().item() < 2e-2 * size, (
            "the results differ"
        )
    calls, rounds = calibrated(runs, region=0.005, limit=seconds, rounds=15)
    timed = interleaved(
        {name: partial(repeat, run, calls) for name, run in runs.items()}, rounds, calls
    )
    mlx_ms, kernel_ms = (1e3 * timed[name].median for name in ("mlx", "kernel"))
    return {"mlx_ms": mlx_ms, "kernel_ms": kernel_ms, "speedup": mlx_ms / kernel_ms}


def forward(function: Callable[..., mx.array], inputs: list[mx.array]) -> mx.array:
    return function(*inputs)


def gradients(function: Callable[..., mx.array], inputs: list[mx.array]) -> list[mx.array]:
    """Those of q, k and v, for a cotangent like q."""
    return mx.vjp(function, inputs, [inputs[0]])[1]


def repeat(run: Callable[[], Any], calls: int) -> list[Any]:
    return [run() for _ in range(calls)]


def small() -> Iterator[Row]:
    """The eight configurations of the small grid."""
    for dtype, (batch, length, dim) in product(
        ("float32", "bfloat16"), product((1, 2), (64, 128), (32, 64))
    ):
        inputs = arrays(batch, length, length, dim, dtype)
        runs = {
            name: partial(function, *inputs) for name, function in attentions(None, inputs).items()
        }
        target = "speedup 20" if dtype == "float32" else "speedup 15"
        yield row(
            "small", f"batch {batch}, L {length}, D {dim}", dtype, target, **compared(runs, 3)
        )


def short() -> Iterator[Row]:
    """Many short sequences, as of attention over time or along an axis: forward and with the
    gradients."""
    for batch, length in ((2048, 3), (1024, 8), (256, 16)):
        inputs = arrays(batch, length, length, 64, "float32")
        for phase, run in (("forward", forward), ("training", gradients)):
            runs = {
                name: partial(run, function, inputs)
                for name, function in attentions(None, inputs).items()
            }
            yield row(
                "short",
                f"batch {batch}, L {length}, D 64, {phase}",
                target="speedup 1",
                **compared(runs, 3),
            )


def speed() -> Iterator[Row]:
    """Floating point operations per second, against those of NumPy."""
    for length, dim, mask in product((1024, 4096), (64, 128), (None, "causal")):
        inputs = arrays(1, length, length, dim, "float32")
        run = partial(attentions(mask, inputs)["kernel"], *inputs)
        mx.eval(run())
        before = numpy_gflops()
        seconds = []
        while sum(seconds) < 1.5 or len(seconds) < 5:
            start = time.perf_counter()
            mx.eval(run())
            seconds.append(time.perf_counter() - start)
        products = statistics.median([before, numpy_gflops()])
        own = 4e-9 * HEADS * length**2 * dim / (2 if mask else 1) / statistics.median(seconds)
        numbers = {
            "kernel_ms": 1e3 * statistics.median(seconds),
            "gflops": own,
            "numpy_gflops": products,
        }
        yield row(
            "speed",
            f"L {length}, D {dim}, {mask or 'dense'}",
            target="share 0.6",
            share=own / products,
            **numbers,
        )


def numpy_gflops() -> float:
    """NumPy's, as it chooses its BLAS kernels itself."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    done = subprocess.run(
        [sys.executable, "-c", _NUMPY], env=own, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def training() -> Iterator[Row]:
    """Forward and backward."""
    for dtype, mask in product(("float32", "bfloat16"), (None, "causal")):
        inputs = arrays(1, 1024, 1024, 64, dtype)
        runs = {
            name: partial(gradients, function, inputs)
            for name, function in attentions(mask, inputs).items()
        }
        target = "speedup 20" if dtype == "float32" else ""
        yield row(
            "training", f"L 1024, D 64, {mask or 'dense'}", dtype, target, **compared(runs, 12)
        )


def decode() -> Iterator[Row]:
    """A query or few over a long cache."""
    for dtype, queries in product(("float32", "bfloat16"), (1, 8)):
        inputs = arrays(1, queries, 8192, 64, dtype)
        runs = {
            name: partial(function, *inputs)
            for name, function in attentions("causal", inputs).items()
        }
        yield row(
            "decode", f"{queries} queries, 8192 keys, D 64", dtype, "speedup 5", **compared(runs, 4)
        )


def memory() -> Iterator[Row]:
    """The peak by length."""
    for phase, length in product(("forward", "training"), (1024, 2048, 4096)):
        inputs = arrays(1, length, length, 64, "float32")
        function = attentions("causal", inputs)["kernel"]
        if phase == "training":
            run = partial(mx.vjp, function, inputs, [inputs[0]])
            peak = peak_memory(lambda run=run: run()[1])
        else:
            peak = peak_memory(partial(function, *inputs))
        yield row(
            "memory",
            f"{phase}, L {length}, D 64, causal",
            target="linear in L",
            kernel_mib=peak / 2**20,
        )


def scripts() -> Iterator[Row]:
    """LoRA and chat of the example scripts on the tiny models, from start to end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repo = folder / "repo"
        shutil.copytree(FIXTURES / "mlx_scripts", repo)
        subprocess.run(
            [sys.executable, FIXTURES / "tiny_models.py", folder], check=True, capture_output=True
        )
        subprocess.run(
            [sys.executable, "-m", "flash_integrate", repo], check=True, capture_output=True
        )
        lora = f"--model {folder}/llama --data {folder}/data --adapter-path {folder}/adapters --batch-size 4 --iters 20"
        commands = {
            "lora_finetune.py, 20 steps": ("fine_tuning_utils/mlx/lora_finetune.py", lora, ""),
            "chat_cli.py, 3 turns": (
                "chat_interfaces/mlx/cli/chat_cli.py",
                f"--model {folder}/gemma --max-tokens 64",
                "Tell me a story.\nAnd another one.\nThank you.\n",
            ),
        }
        for title, (script, arguments, said) in commands.items():
            base = [sys.executable, str(repo / script), *arguments.split()]
            ways = {"kernel": base, "mlx": [*base, "--disable-flash-attention"]}
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(6):
                for way, command in ways.items():
                    start = time.perf_counter()
                    subprocess.run(
                        command, input=said, text=True, check=True, capture_output=True, cwd=folder
                    )
                    seconds[way].append(time.perf_counter() - start)
            # The first run of each compiles what MLX compiles.
            mlx_ms, kernel_ms = (
                1e3 * statistics.median(seconds[way][1:]) for way in ("mlx", "kernel")
            )
            numbers = {"mlx_ms": mlx_ms, "kernel_ms": kernel_ms, "speedup": mlx_ms / kernel_ms}
            yield row("scripts", title, "as the model", "whatever it is", **numbers)


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
    rows = []
    for name, part in PARTS.items():
        if args.only in (None, name):
            for each in part():
                rows.append(each)
                print(
                    "  ".join(
                        f"{key} {value}" for key, value in each.items() if value not in (None, "")
                    ),
                    flush=True,
                )
    if args.only is None:
        path = write(
            args.json.absolute(),
            rows,
            title="The CPU kernel",
            command="python benchmarks/cpu_kernel.py",
            definitions=DEFINITIONS,
        )
        print(f"written: {path}")


if __name__ == "__main__":
    main()
