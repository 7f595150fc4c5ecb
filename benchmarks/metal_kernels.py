"""What our kernels for Metal come to by counting, beside MLX's own way: tables of docs/metal.md.

python benchmarks/metal_kernels.py    # writes it there

Nothing is measured: products and bytes are counted from the shapes, and a chip's time for them is
estimated from the memory bandwidth that Apple publishes for it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mlx_flash_runtime import explain
from mlx_flash_runtime.kernels.quantization import Bits
from mlx_flash_runtime.ops.work import Work, of_query_blocks
from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.problem.masks import Segments
from mlx_flash_runtime.routes import ROUTES, metal_kernel, query_blocks
from mlx_flash_runtime.stock.fused import is_fused
from mlx_flash_runtime.tools.bench.cases import call, inference, training

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metal.md"
START, STOP = "<!-- counted: benchmarks/metal_kernels.py -->\n", "<!-- counted, end -->\n"
TRAINING = "<!-- counted for training: benchmarks/metal_kernels.py -->\n"
TRAINING_STOP = "<!-- counted for training, end -->\n"
MAC = Device("metal", (0, 32, 4), 64 * 2**30, "Darwin", own_kernel=True)
# The last release without a fused gradient.
BEFORE_FUSED_TRAINING = replace(MAC, mlx=(0, 32, 3))
# Bytes a second, by Apple's pages of technical specifications; of each generation the chip without
# Pro or Max.
CHIPS = {"M1": 68.25e9, "M2": 100e9, "M3": 100e9, "M4": 120e9, "M5": 153e9}
WITH_NAX = {"M5"}
ROUTE_BY_NAME = {route.name: route for route in ROUTES}


class Case(NamedTuple):
    """A call; of a bool mask the share of the tiles that it leaves, of quantized keys and values
    how they are."""

    problem: Problem
    share: float | None = None
    bits: Bits | None = None


def cases() -> dict[str, Case]:
    """By name."""
    rows = {name: Case(problem) for name, problem in inference().items()}
    blocks = call(8192, 8192, mask="bool", mask_shape=(8192, 8192))
    rows["bool mask that leaves 1/8 of 8,192"] = Case(blocks, 1 / 8)
    rows["bool mask that leaves 1/2 of 8,192"] = Case(blocks, 1 / 2)
    for queries, keys in ((1, 8192), (1, 32768), (12, 8192)):
        name = "one query" if queries == 1 else f"{queries} queries"
        rows[f"{name} on {keys:,}, 4-bit keys"] = Case(call(queries, keys), bits=Bits(4, 64))
    return rows


def table() -> str:
    """In Markdown."""
    chips = " | ".join(CHIPS)
    lines = [
        f"| 32/8 heads, bfloat16 | MLX's way | here | our kernel | {chips} |",
        f"|---|---|---|---|{'---:|' * len(CHIPS)}",
    ]
    for name, case in cases().items():
        is_one = case.bits is None and is_fused(case.problem, MAC)[0]
        own, stock = works(case, MAC)
        estimates = [_estimates(case, chip) for chip in CHIPS]
        lines.append(
            f"| {name} | {'fused' if is_one else 'unfused'}: {_counted(stock)} |"
            f" {_taken(case)} | {_counted(own)} | {' | '.join(estimates)} |"
        )
    return "\n".join(lines) + "\n"


def works(case: Case, device: Device) -> tuple[Work, Work]:
    """What our kernel comes to, and MLX's own way."""
    told = explain(case.problem, device=device)
    assert told.kernel_work is not None
    if case.bits is not None:
        return metal_kernel.quantized_work(case.problem, case.bits, device)
    if case.share is not None:
        own = metal_kernel.work_of_share(case.problem, device, case.share)
        return own, told.stock_work
    return told.kernel_work, told.stock_work


def _taken(case: Case) -> str:
    """The route that is taken, with what it comes to where that is in no other column."""
    name = route(case)
    if name in ("lowered", "query_blocks"):
        return f"`{name}`: {_counted(_work_of(name, case.problem, MAC))}"
    return f"`{name}`"


def route(case: Case) -> str:
    """The route that is taken."""
    told = explain(case.problem, device=MAC)
    if case.bits is not None:
        pays = metal_kernel.pays_quantized(case.problem, case.bits, MAC)
        return metal_kernel.name if pays else "unfused"
    if case.share is not None:
        assert told.most_seen is not None
        return metal_kernel.name if case.share <= told.most_seen else "native"
    return told.route


def training_table() -> str:
    """Windows and packed documents with their gradient, in Markdown; documents also with the
    release before the one that has a fused gradient."""
    lines = [
        "| bfloat16, 8,192 tokens | MLX's way | without our kernels | our kernels |"
        " M1 to M4 | M5 | taken on |",
        "|---|---|---|---|---:|---:|---|",
    ]
    for name, problem in training().items():
        lines.append(_training_row(name, problem, MAC))
        if isinstance(problem.structure, Segments):
            lines.append(_training_row(f"{name}, MLX 0.32.3", problem, BEFORE_FUSED_TRAINING))
    return "\n".join(lines) + "\n"


def _training_row(name: str, problem: Problem, device: Device) -> str:
    told = explain(problem, device=device)
    assert told.kernel_work is not None
    without, work = _without_our_kernels(problem, device)
    ratios = [_training_ratio(problem, replace(device, nax=nax)) for nax in (False, True)]
    return (
        f"| {name} | unfused: {_counted(told.stock_work)} | `{without}`: {_counted(work)} |"
        f" {_counted(told.kernel_work)} | {' | '.join(ratios)} | {_taken_on(problem, device)} |"
    )


def _without_our_kernels(problem: Problem, device: Device) -> tuple[str, Work]:
    """The route that would be taken, and what it comes to."""
    route = explain(problem, device=replace(device, own_kernel=False)).route
    return route, _work_of(route, problem, device)


def _work_of(route: str, problem: Problem, device: Device) -> Work:
    work = ROUTE_BY_NAME[route].work(problem, device, None)
    if work is not None:
        return work
    assert route == query_blocks.name
    return of_query_blocks(problem, device)


def _training_ratio(problem: Problem, device: Device) -> str:
    """How many times the cost of our kernels, which have no use of an M5's matrix units, the call
    has without them."""
    own = metal_kernel.work(problem, device, None).cost(replace(device, nax=False))
    _, without = _without_our_kernels(problem, device)
    return f"{without.cost(device) / own:.1f}"


def _taken_on(problem: Problem, device: Device) -> str:
    """The chips on which our kernels are taken."""
    chips = {"M1 to M4": device, "M5": replace(device, nax=True)}
    names = [
        name
        for name, chip in chips.items()
        if explain(problem, device=chip).route == metal_kernel.name
    ]
    return ", ".join(names) or "none"


def _counted(work: Work) -> str:
    return f"{work.products / 1e9:,.1f} G, {work.moved / 2**20:,.0f} MiB"


def _estimates(case: Case, chip: str) -> str:
    """Milliseconds of MLX's own way and of our kernel, which has no use of an M5's matrix units."""
    device = replace(MAC, nax=chip in WITH_NAX)
    own, stock = works(case, device)
    costs = stock.cost(device), own.cost(replace(device, nax=False))
    return " / ".join(_shown(1e3 * cost / CHIPS[chip]) for cost in costs)


def _shown(milliseconds: float) -> str:
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.2g}"


def page(text: str) -> str:
    """The page with the tables as they are now."""
    text = _between(START, STOP, table(), text)
    return _between(TRAINING, TRAINING_STOP, training_table(), text)


def _between(start: str, stop: str, table: str, text: str) -> str:
    before, rest = text.split(start)
    return f"{before}{start}{table}{stop}{rest.split(stop)[1]}"


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
