"""Peak memory and time of a prefill into a quantized cache, stock and ours, next to stock with a
cache that is not.

    python benchmarks/quantized_cache.py MACHINE [--config 1b] [--length 32768] [--json FILE]

Writes benchmarks/results/quantized_cache_MACHINE.json.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import mlx.core as mx
from in_turns import in_turns, refusals
from mlx_lm.generate import generate_step
from store import Result, parser_of, place

from mlx_flash_runtime.tools.bench.models import SIZES, Model, make
from mlx_flash_runtime.tools.bench.routes_taken import in_words
from mlx_flash_runtime.tools.bench.variants import attention
from mlx_flash_runtime.tools.bench.workloads import random_tokens

TITLE = "A prefill into a quantized cache"
DEFINITIONS = (
    "A prompt of so many tokens on a Llama-shaped model with random weights, by mlx-lm's own "
    "generation in steps of 2,048, and one token after it; the cache has so many bits from the "
    "first token on. MiB: the peak, the model's weights and all. Milliseconds: the median of three "
    "runs after one that warms up, in turns. A run that MLX refuses has the reason in the last "
    "column.",
)
CACHES: tuple[int | None, ...] = (None, 8, 4)
VARIANTS = ("stock", "ours")
_RUNS = 3


def measured(model: Model, length: int, bits: int | None) -> dict[str, Any]:
    """One row: a cache of so many bits, or of the model's own type."""
    ways = {name: partial(prefill, name, model, length, bits) for name in VARIANTS}
    tried = in_turns(ways, _RUNS)
    row: dict[str, Any] = {"cache": f"{bits} bits" if bits else model.dtype, "prompt": length}
    row["routes"] = in_words(tried["ours"].taken) or "-"
    for name, way in tried.items():
        row |= {f"{name}_ms": way.milliseconds, f"{name}_mib": way.mib}
    return row | {"refused": refusals(tried)}


def prefill(variant: str, model: Model, length: int, bits: int | None) -> float:
    """Seconds until the second token."""
    prompt = random_tokens(model, length)
    mx.eval(prompt)
    group_size = min(64, model.head_dim)
    with attention(variant):
        start = time.perf_counter()
        for _ in generate_step(
            prompt,
            model.module,
            max_tokens=2,
            kv_bits=bits,
            kv_group_size=group_size,
            quantized_kv_start=0,
        ):
            pass
        mx.synchronize()
        return time.perf_counter() - start


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--config", choices=SIZES, default="1b")
    parser.add_argument("--length", type=int, default=32768, metavar="N")
    args = parser.parse_args()
    command = f"python benchmarks/quantized_cache.py {args.machine}"
    path = place(args, "quantized_cache")
    result = Result(path, title=TITLE, command=command, definitions=DEFINITIONS)
    model = make(args.config, "llama", None)
    model.module.eval()
    for bits in CACHES:
        result.add(measured(model, args.length, bits))
        print(result.rows[-1], flush=True)
    print(f"written: {result.path}")


if __name__ == "__main__":
    main()
