"""Our own kernel on Metal: few queries that MLX has no fused kernel for. It was written and tested
without a Mac, so nothing here is measured: counting decides, and `mlx-flash tune` on the machine
itself."""

from __future__ import annotations

from collections.abc import Callable

from ..kernels.metal import checked, operation
from ..kernels.metal.few_queries import cut_of, reads_mask
from ..ops.work import Work, of_stock
from ..problem import Device, Launch, Problem
from ..stock.fused import is_fused
from .route import Route

# A draft of a few dozen tokens that is verified; more queries would fill the tiles of a kernel that
# shares the keys among more of them.
_MOST_QUERIES = 48
# Arrays of fewer numbers would be constants for Metal, and rows of fewer would leave most of a
# product empty.
_FEWEST_KEYS = 8
_SMALLEST_HEAD_DIM, _LARGEST_HEAD_DIM = 8, 576
# What is closer than this the count does not tell apart.
_MOST = 0.9


class MetalKernel(Route):
    """All query heads of a key head in one product, its keys in parts, which are put together by a
    second kernel."""

    name = "metal_kernel"

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Few queries on a Mac, with any mask, outside of training."""
        if device.backend != "metal":
            return False, "this kernel is for Metal"
        if not device.own_kernel:
            return False, "the Metal kernel failed its check on this machine"
        if problem.training:
            return False, "the Metal kernel has no gradient of its own"
        if problem.query_length > _MOST_QUERIES:
            return False, "the Metal kernel is for few queries"
        if problem.key_length < max(_FEWEST_KEYS, problem.query_length):
            return False, "the Metal kernel is for more keys"
        head_dims = problem.head_dim, problem.value_head_dim
        if min(head_dims) < _SMALLEST_HEAD_DIM or max(head_dims) > _LARGEST_HEAD_DIM:
            return False, "the Metal kernel is for other head dims"
        return True, "our own kernel for few queries, where MLX has none that is fused"

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Where MLX has no fused kernel, and counting says that it costs more."""
        if is_fused(problem, device)[0]:
            return False, "MLX has a fused kernel"
        if problem.softcap is not None:
            return True, "MLX has no fused kernel for softcapped scores"
        own, stock = self.work(problem, device, None), of_stock(problem, device)
        if own.cost(device) > _MOST * stock.cost(device):
            return False, "it would cost as much as MLX's unfused attention by counting"
        return True, "it costs less than MLX's unfused attention by counting"

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """The results of the parts of the keys, in float32, with two numbers for each query."""
        rows = problem.batch * problem.query_heads * problem.query_length
        return 4 * rows * cut_of(problem).parts * (problem.value_head_dim + 2)

    def work(self, problem: Problem, device: Device, block_size: int | None) -> Work:
        """Whole tiles of queries on the keys that a window leaves; the keys once for each slice of
        the values, the results of the parts written and read."""
        p, cut = problem, cut_of(problem)
        keys = p.key_length
        if p.window is not None:
            keys = min(keys, p.window + p.query_length - 1)
        tiles = cut.blocks * cut.tiles
        dims = cut.slices * p.head_dim + p.value_head_dim
        products = p.batch * p.key_heads * tiles * cut.rows * keys * dims
        moved = p.item_bytes * p.batch * p.key_heads * keys * dims
        rows = p.batch * p.query_heads * p.query_length
        moved += p.item_bytes * rows * (p.head_dim + p.value_head_dim)
        if reads_mask(p):
            moved += (p.item_bytes if p.mask == "additive" else 1) * p.score_count
        parts = self.extra_memory(p, device, None)
        return Work(products, moved + 2 * parts, 2)

    def prepare(self, problem: Problem, device: Device, then: Callable[[], None]) -> None:
        """Has calls planned anew should a kernel fail its check."""
        if device.backend == "metal":
            checked.tell_when_refused(then)

    def launch(
        self,
        problem: Problem,
        device: Device,
        block_size: int | None,
        in_gradient: Callable[[], Launch] | None = None,
    ) -> Launch:
        """The kernel, with MLX's own gradient: a step of decoding is not asked whether it is part
        of one."""
        return operation.launch(problem)


metal_kernel = MetalKernel()
