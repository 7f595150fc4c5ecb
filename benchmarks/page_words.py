"""What is said below a table of docs/performance.md beside what its result says: what its headings
mean, and what its numbers do not reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from page_columns import OVER, has_quartiles, ours_of

from mlx_flash_runtime.tools.bench.model_check import MOST_ROUNDING
from mlx_flash_runtime.tools.bench.tables import Document, Row

# How far a prediction of memory may be from what is measured.
_PREDICTED = 1.1
_UNPROVED = ", without proofs"
ONE_RUN = "One run of each kind (`--runs 1`): how far runs differ is not known."
PROCESSES = "Compare: each run is a process of its own."


def of_documents(documents: Sequence[Document]) -> list[str]:
    """Of grids, workflows and comparisons of a machine."""
    return [PROCESSES] if any(document.kind == "compare" for document in documents) else []


def of_rows(name: str, command: str, rows: Sequence[Row]) -> list[str]:
    """Of what a script of this folder measured."""
    found = [*_of_ratios(rows)]
    for kind, words in _WORDS.items():
        if name.startswith(kind):
            found += words(rows)
    return [*found, *([ONE_RUN] if command.endswith("--runs 1") else [])]


def _of_ratios(rows: Sequence[Row]) -> list[str]:
    if not any(key.startswith(OVER) or key == "stock_ms" for key in rows[0]):
        return []
    ours = "ours" if ours_of(rows[0]) == "ours" else "our kernel's"
    said = f"× NAME: the milliseconds of NAME over {ours}; below 1, ours took longer."
    if has_quartiles(rows):
        said += " The ± is half the interquartile range of the rounds."
    return [said]


def _cpu_kernel(rows: Sequence[Row]) -> list[str]:
    missed = []
    for row in rows:
        key, _, least = row["target"].rpartition(" ")
        if row.get(key) is not None and row[key] < float(least):
            missed.append(f"{row['call']}, {row['dtype']} ({key} {row[key]:.3g} of {least})")
    said = "share: gflops over numpy gflops. Target: what the kernel was to reach at least"
    return [f"{said}; not reached: {'; '.join(missed) or 'none'}."]


def _integrator_speed(rows: Sequence[Row]) -> list[str]:
    """What proofs add, and how LibCST's codemods compare with one process on the same files."""
    seconds = {row["case"]: row["processor_seconds"] for row in rows}
    ours = seconds.get("mlx_lm, -j 1")
    times = [f"{taken / ours:.1f}" for case, taken in seconds.items() if ours and "codemod" in case]
    said = "Aim: the most that it was to take. -j: processes."
    by_case = {row["case"]: row["seconds"] for row in rows}
    proofs = [
        f"{by_case[case.removesuffix(_UNPROVED)] / without:.2f}"
        for case, without in by_case.items()
        if case.endswith(_UNPROVED)
    ]
    if proofs:
        said += (
            f" With proofs it takes {' and '.join(proofs)} times as long as without; the aim is "
            "1.2 at most."
        )
    if times:
        said += (
            f" LibCST's codemods take {' and '.join(times)} times the processor time of `mlx_lm, "
            "-j 1`, which are the same files."
        )
    return [said]


def _plan(rows: Sequence[Row]) -> list[str]:
    said = [
        "Ratio: predicted over measured. A prompt is read in steps of 512 tokens, or in one step; "
        "on a GPU in steps of 2,048; `--max-kv-size` keeps as many. Seconds: what predicting and "
        "measuring took."
    ]
    off = [row for row in rows if (row["ratio"] or 0) > _PREDICTED]
    if off:
        named = ", ".join(sorted({row["model"] for row in off}))
        ratios = [row["ratio"] for row in off]
        said.append(
            "What is predicted is the most that a step comes to, and not every step comes to it: "
            "memory is let go of where the GPU is done with earlier work before MLX has described "
            f"the rest, even here. {named}: {min(ratios):.2f} to {max(ratios):.2f} times as much "
            "was predicted as was measured. What fits is judged by the most, so `mlx-flash plan` "
            "may call a step too large that runs."
        )
    return said


def _policy(rows: Sequence[Row]) -> list[str]:
    return [
        "Calls of one shape are made one at a time and each is waited for, so that what it takes "
        "to start one counts in full."
    ]


def _handwritten(rows: Sequence[Row]) -> list[str]:
    said = [
        "Agrees: output within 1e-4, gradient within 1e-3. Failed: why MLX does not run the case, "
        "without an error to show then."
    ]
    both = [row for row in rows if row["rewritten_ms"] and row["with_runtime_ms"]]
    if both:
        gains = [row["rewritten_ms"] / row["with_runtime_ms"] for row in both]
        said.append(
            f"With the runtime the rewritten model is {min(gains):.2f} to {max(gains):.2f} times "
            f"as fast as on stock MLX, in the median {median(gains):.2f}."
        )
    far = {row["model"]: None for row in rows if (row["by_hand_error"] or 0) >= MOST_ROUNDING}
    if far:
        said.append(
            f"{', '.join(far)}: the type's roundings alone turn the output of a model with random "
            "weights into another, by hand too, and the three errors say nothing there; that the "
            "rewriting is right is known from output and gradient."
        )
    return said


def _cuda_kernel(rows: Sequence[Row]) -> list[str]:
    if not any(row.get("kernel_cold_ms") is not None for row in rows):
        return []
    return [
        "Cold may be less than in turns: what the processor needs to start a call is hidden while "
        "the GPU is still writing."
    ]


def _quantized_cache(rows: Sequence[Row]) -> list[str]:
    return ["Each time is that of one run: how far runs differ is not known."]


def _few_queries(rows: Sequence[Row]) -> list[str]:
    return ["Heads: query heads / key heads. Bits -: keys and values are not quantized."]


_WORDS: dict[str, Callable[[Sequence[Row]], list[str]]] = {
    "cpu_kernel": _cpu_kernel,
    "cuda_kernel": _cuda_kernel,
    "few_queries": _few_queries,
    "handwritten_models": _handwritten,
    "integrator_speed": _integrator_speed,
    "plan": _plan,
    "policy": _policy,
    "quantized_cache": _quantized_cache,
}
