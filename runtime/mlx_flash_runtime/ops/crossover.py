"""Where blocks beat MLX's unfused attention. The constants are measured by
`benchmarks/crossover.py`."""

from __future__ import annotations

from ..problem import Device, Problem
from ..stock.fused import error_of
from ..stock.memory import scores_fit

# On the CPU (MLX 0.32, Linux wheel), counting what is slower of forward and training: nobody can
# tell a call which it is. Below this length the blocks' own operations cost what they save.
_CPU_LENGTH = 256
# From this share on, the blocks that a causal mask hides pay for computing the others again in the
# gradients; more of it is needed in bfloat16, where MLX's own products are faster than the float32
# ones of the blocks.
_CPU_SKIPPED_SHARE = {"float32": 0.25, "float16": 0.25, "bfloat16": 0.375}
# Without anything to skip, the gain is in the products: in float32, where BLAS takes a transposed
# copy of the keys faster than MLX's transposed view, and with a head dim that makes products most
# of the work.
_CPU_HEAD_DIM = 128


def blocks_pay(problem: Problem, device: Device) -> tuple[bool, str]:
    """Whether a call that is unfused in MLX should run in blocks, and the reason in a phrase."""
    if error_of(problem, device) is not None:
        return True, "MLX has an error in its place"
    if not scores_fit(problem, device):
        return True, "its scores would not fit in memory"
    if device.backend != "cpu" or device.system != "Linux":
        return False, "blocks are not known to be faster on this device"
    if min(problem.query_length, problem.key_length) < _CPU_LENGTH:
        return False, "blocks are not faster at this length"
    if problem.skipped_share() >= _CPU_SKIPPED_SHARE[problem.dtype]:
        return True, "blocks skip much of its mask"
    if problem.dtype == "float32" and problem.head_dim >= _CPU_HEAD_DIM:
        return True, "blocks multiply faster"
    return False, "blocks are not faster for it"
