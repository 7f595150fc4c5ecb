"""What a Mac gains, by kind of work: the table near the top of README.md, by the planner's answers
and without a measurement. `performance_page.py` writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_flash_runtime import explain
from mlx_flash_runtime.ops.work import of_stock
from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.problem.masks import Segments, Window
from mlx_flash_runtime.stock.fused import error_of, is_fused

FAMILIES = Path(__file__).resolve().parents[1] / "docs" / "families.md"
MAC = Device("metal", (0, 32, 4), 64 * 2**30, "Darwin", own_kernel=True)
# Routes of `families.md` on which a layer runs as without the patch.
MLX_ITSELF = {"native", "unfused"}

INTRODUCTION = """\
**For most language models on a current MLX a Mac gains nothing**: in {same} of the {all} families \
of mlx-lm in
[docs/families.md](docs/families.md) every layer stays on MLX's own attention. By the planner's \
rules for MLX {mlx} on M1 to
M4, in bfloat16 (nothing was run on a Mac; of your model, another chip and another MLX,
`mlx-flash explain --model ./my_model --chip m5 --mlx 0.31` says it):"""


@dataclass(frozen=True)
class Work:
    """A kind of work, as one call of it; `stock` is the call that MLX gets without the patch, where
    that is another."""

    name: str
    problem: Problem
    stock: Problem | None = None


def _call(length: int, keys: int = 0, head_dim: int = 128, **changes: object) -> Problem:
    problem = Problem(
        1, 32, 8, length, keys or length, head_dim, head_dim, dtype="bfloat16", mask="causal"
    )
    return replace(problem, **changes)  # type: ignore[arg-type]  # fields of a Problem


def _window(problem: Problem, size: int) -> Problem:
    shape = problem.query_length, problem.key_length
    return replace(problem, mask="window", mask_shape=shape, structure=Window(size))


def _as_array(problem: Problem) -> Problem:
    shape = problem.query_length, problem.key_length
    return replace(problem, mask="additive", mask_shape=shape)


_LONG = _call(4096)
_TRAINED = replace(_LONG, training=True)
_PACKED = replace(
    _TRAINED, mask="segments", mask_shape=(4096, 4096), structure=Segments((1024,) * 4)
)
WORK = (
    Work("most language models: prompts, chat, batches", _call(2048, 8192)),
    Work("most language models: training, LoRA", _TRAINED),
    Work("a causal mask given as an array (`nn.Transformer`): inference", _LONG, _as_array(_LONG)),
    Work("a causal mask given as an array: training", _TRAINED, _as_array(_TRAINED)),
    Work("a window of 1,024 tokens: prompts by 2,048 tokens", _window(_call(2048, 3071), 1024)),
    Work("a window of 512: training on 4,096 tokens", _window(_TRAINED, 512)),
    Work("documents packed by `packed_mask`: training on 4 of 1,024 tokens", _PACKED),
    Work(
        "attention sinks (gpt-oss): training",
        replace(_call(4096, 0, 64, sinks=True), training=True),
    ),
    Work("8 queries or fewer that are trained", _call(8, 512, mask="none", training=True)),
    Work("head dim 112: prompts", _call(4096, head_dim=112)),
    Work("head dim 256, a window of 1,024 (Gemma 3): prompts", _window(_call(4096, 0, 256), 1024)),
    Work("head dims 192 and 128 (MLA): prompts", replace(_call(4096), head_dim=192)),
)


def table() -> str:
    """The sentence and the table."""
    same, total = families()
    release = ".".join(map(str, MAC.mlx))
    lines = [INTRODUCTION.format(same=same, all=total, mlx=release), ""]
    lines += ["| on a Mac | MLX alone | with the patch |", "|---|---|---|"]
    for work in WORK:
        stock = work.stock or work.problem
        lines.append(f"| {work.name} | {alone(stock)} | {patched(work.problem, stock)} |")
    return "\n".join(lines)


def families() -> tuple[int, int]:
    """Of the families on Metal in docs/families.md, those that run on MLX's own attention alone,
    and all with attention layers of a class."""
    section = FAMILIES.read_text(encoding="utf-8").partition("## Metal\n")[2].partition("\n## ")[0]
    same = total = 0
    for line in section.splitlines():
        routes = set(re.findall(r"\b\d+ ([a-z_]+) \[", line))
        total += bool(routes)
        same += bool(routes) and routes <= MLX_ITSELF
    return same, total


def alone(problem: Problem) -> str:
    """How MLX itself runs it."""
    if error_of(problem, MAC) is not None:
        return "an error"
    if is_fused(problem, MAC)[0]:
        return "fused"
    return f"unfused, {mebibytes(explain(problem, device=MAC).stock_memory)} of scores"


def patched(problem: Problem, stock: Problem) -> str:
    """What the patch does of it, and what that saves by counting."""
    told = explain(problem, device=MAC)
    if told.route in MLX_ITSELF and problem == stock:
        return "the same"
    if told.route in ("blockwise", "query_blocks"):
        return f"in blocks, {mebibytes(told.extra_memory)}"
    work = told.lowered_work if told.route == "lowered" else told.stock_work
    assert work is not None
    if not is_fused(stock, MAC)[0]:
        return "fused"
    return f"fused, {work.products / of_stock(stock, MAC).products:.0%} of the multiply-adds"


def mebibytes(count: int) -> str:
    """`1,024 MiB`; of less than 10, one decimal."""
    size = count / 2**20
    return f"{size:,.0f} MiB" if size >= 10 else f"{size:.1f} MiB"
