"""Where blocks beat MLX's unfused attention. The constants are measured by `benchmarks/crossover.py`."""

from __future__ import annotations

from .masks import Causal
from .problem import Device, Problem

# Above this share of the memory the scores of one call do not fit next to everything else.
_MEMORY_SHARE = 1 / 4

# On the CPU (MLX 0.32, Linux wheel), counting what is slower of forward and training: nobody can tell a call which it
# is. Below this length the blocks' own operations cost what they save.
_CPU_LENGTH = 256
# From this share on, the blocks that a causal mask hides pay for computing the others again in the gradients; more of
# it is needed in bfloat16, where MLX's own products are faster than the float32 ones of the blocks.
_CPU_SKIPPED_SHARE = {"float32": 0.25, "float16": 0.25, "bfloat16": 0.375}
# Without anything to skip, the gain is in the products: in float32, where BLAS takes a transposed copy of the keys
# faster than MLX's transposed view, and with a head dim that makes products most of the work.
_CPU_HEAD_DIM = 128


def scores_fit(problem: Problem, device: Device) -> bool:
    """Whether the scores of MLX's unfused attention fit in memory next to everything else."""
    return unfused_memory(problem) <= _MEMORY_SHARE * device.memory


def unfused_memory(problem: Problem) -> int:
    """Bytes of MLX's unfused forward pass at its peak, beyond inputs and output: the scores and their softmax."""
    return 2 * problem.item_bytes * problem.score_count


def blocks_pay(problem: Problem, device: Device) -> tuple[bool, str]:
    """Whether a call that is unfused in MLX should run in blocks, and the reason in a phrase."""
    if not scores_fit(problem, device):
        return True, "its scores would not fit in memory"
    if device.backend != "cpu" or device.system != "Linux":
        return False, "blocks are not known to be faster on this device"
    if min(problem.query_length, problem.key_length) < _CPU_LENGTH:
        return False, "blocks are not faster at this length"
    if skipped_share(problem) >= _CPU_SKIPPED_SHARE[problem.dtype]:
        return True, "blocks skip much of its mask"
    if problem.dtype == "float32" and problem.head_dim >= _CPU_HEAD_DIM:
        return True, "blocks multiply faster"
    return False, "blocks are not faster for it"


def skipped_share(problem: Problem, block_size: int = 128) -> float:
    """The share of the score blocks that the mask's structure hides entirely."""
    structure = Causal() if problem.mask == "causal" else problem.structure
    if structure is None or problem.query_length > problem.key_length:
        return 0.0
    offset = problem.key_length - problem.query_length
    rows = range(0, problem.query_length, block_size)
    columns = -(-problem.key_length // block_size)
    seen = 0
    for start in rows:
        stop = min(start + block_size, problem.query_length)
        first, last = structure.first(offset + start), structure.last(offset + stop - 1)
        seen += last // block_size - first // block_size + 1
    return 1 - seen / (len(rows) * columns)
