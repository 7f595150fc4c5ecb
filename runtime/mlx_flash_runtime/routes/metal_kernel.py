"""Our own kernels on Metal: few queries that MLX has no fused kernel for, and many whose mask hides
most keys, in training too. They were written and tested without a Mac, so nothing here is measured:
counting decides, and `mlx-flash tune` on the machine itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import mlx.core as mx

from ..kernels.metal import checked, kernel, operation, tile_skipping
from ..kernels.metal.few_queries import cut_of
from ..kernels.metal.mask_tiles import Looks
from ..kernels.quantization import Bits
from ..kernels.split_keys import seen_keys
from ..ops.work import (
    Work,
    fused_products,
    inputs,
    of_query_blocks,
    of_stock,
    of_unfused,
    score_bytes,
)
from ..problem import Device, Launch, Problem
from ..stock.fused import is_fused
from .route import Route

# What is closer than this the count does not tell apart.
_MOST = 0.9
# Beside MLX's own kernel for many queries, which is as fast for each tile that it takes.
_MOST_FOR_MANY = 0.5
# How many times slower than MLX's kernels the gradient's multiply, up to a head dim: what was
# published of two such kernels on the same headers comes to that. For causal masks they were 1.17
# to 1.37 times as fast as MLX's unfused way at head dims 64 and 96, 0.67 to 0.76 times at 128 (M3
# Max, float16; MLX's pull request 3241), where counting without this says 3.2, 2.6 and 2.2.
_BACKWARD_SLOWER = {96: 3, 128: 4}
# The cost of a call whose mask is worth a look, which waits a fraction of a millisecond for it:
# what the GPU of an M4 reads in 5.
_WORTH_A_LOOK = 2**29


class MetalKernel(Route):
    """For few queries all query heads of a key head in one product, its keys in parts, which are
    put together by a second kernel; for many, MLX's own kernel without the keys that no query of a
    block sees."""

    name = "metal_kernel"

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """On a Mac: few queries with any mask, many with one of bools or one that is known by what
        it says, in training with the latter alone."""
        if device.backend != "metal":
            return False, "this kernel is for Metal"
        if not device.own_kernel:
            return False, "a Metal kernel failed its check on this machine"
        why_not = kernel.why_not(problem)
        if why_not:
            return False, why_not
        if kernel.is_for_few(problem):
            return True, "our own kernel for few queries, where MLX has none that is fused"
        if problem.training:
            return True, "kernels, forward and backward, that skip what its mask hides"
        if _takes_a_look(problem, device):
            return True, "MLX's own kernel, told to skip what a mask hides where that is enough"
        return True, "MLX's own kernel, told to skip what its mask hides"

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """For few queries where MLX has no fused kernel, and counting says that its way costs more;
        for many where it says twice as much; in training twice as much as of blocks of queries,
        too. What a bool mask hides is not known here: where MLX has a fused kernel, it takes a
        look at each, see `launch`."""
        most_seen = self.most_seen(problem, device)
        if most_seen is not None:
            if most_seen <= 0 or of_stock(problem, device).cost(device) < _WORTH_A_LOOK:
                return False, "MLX's own way is too short to look at what a mask hides"
            return True, "it costs less than MLX's own way by counting, for masks that hide enough"
        if not kernel.is_for_few(problem):
            most = _MOST_FOR_MANY
        elif is_fused(problem, device)[0]:
            return False, "MLX has a fused kernel"
        else:
            most = _MOST
        # Our kernels do not multiply with the matrix units of M5, as MLX's do.
        own = self.work(problem, device, None).cost(replace(device, nax=False))
        if own > most * of_stock(problem, device).cost(device):
            return False, "MLX's own way costs little more by counting"
        if problem.training and own > most * of_query_blocks(problem, device).cost(device):
            return False, "MLX's own way in blocks of queries costs little more by counting"
        return True, "it costs less than MLX's own way by counting"

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """For few queries the results of the parts of the keys, in float32, with two numbers for
        each query; for many, what has to be laid out anew, and what a bool mask has of keys for
        each query and tile. The logsumexp that a gradient needs is too little to count."""
        if not kernel.is_for_few(problem):
            counts = _numbers_of_mask(problem) * 4 // tile_skipping.keys_of_block(problem.head_dim)
            return inputs(problem) - problem.output_bytes + counts
        rows = problem.batch * problem.query_heads * problem.query_length
        return 4 * rows * cut_of(problem).parts * (problem.value_head_dim + 2)

    def work(self, problem: Problem, device: Device, block_size: int | None) -> Work:
        """What the kernel multiplies and moves; for many queries with a bool mask as if it hid
        nothing, and in training with the gradient's products counted as slow as they are."""
        extra = self.extra_memory(problem, device, None)
        if kernel.is_for_few(problem):
            return _of_few(problem, extra)
        if problem.training:
            return _of_training(problem, extra)
        return _of_many(problem, extra, 1 - problem.skipped_share(tile_skipping.BLOCK))

    def work_of_share(self, problem: Problem, device: Device, share: float) -> Work:
        """The same for many queries, where a bool mask leaves that share of the tiles."""
        return _of_many(problem, self.extra_memory(problem, device, None), share)

    def most_seen(self, problem: Problem, device: Device) -> float | None:
        """The share of its tiles that a bool mask may leave for the kernel to cost half of MLX's
        own way by counting; None where masks are not looked at."""
        if not _takes_a_look(problem, device):
            return None
        plain = replace(device, nax=False)
        none, all = (self.work_of_share(problem, device, share).cost(plain) for share in (0, 1))
        most = _MOST_FOR_MANY * of_stock(problem, device).cost(device)
        return (most - none) / (all - none)

    def takes_quantized(self, problem: Problem, device: Device) -> bool:
        """Whether there is a kernel that reads keys and values as `mx.quantize` packs them."""
        return kernel.is_for_few(problem) and self.holds(problem, device)[0]

    def pays_quantized(self, problem: Problem, bits: Bits, device: Device) -> bool:
        """Whether it then costs less than products with the quantized arrays, whose scores are all
        there."""
        own, stock = self.quantized_work(problem, bits, device)
        return own.cost(replace(device, nax=False)) <= _MOST * stock.cost(device)

    def quantized_work(self, problem: Problem, bits: Bits, device: Device) -> tuple[Work, Work]:
        """What the kernel multiplies and moves of quantized keys and values, and what those
        products do."""
        p = problem
        packed = bits.bits / 8 + 2 * p.item_bytes / bits.group_size  # bytes of a number
        own = _of_few(p, self.extra_memory(p, device, None), packed)
        numbers = p.batch * p.key_heads * p.key_length * (p.head_dim + p.value_head_dim)
        return own, replace(of_unfused(p, device), moved=packed * numbers + score_bytes(p))

    def reads_mask(self, problem: Problem) -> bool:
        """Whether the mask is an array for the kernel, too."""
        return kernel.reads_mask(problem)

    def quantized(
        self,
        problem: Problem,
        bits: Bits,
        device: Device,
        scale: float,
        arrays: Sequence[mx.array],
    ) -> mx.array | None:
        """Attention over quantized keys and values, see `TakesQuantized`."""
        return operation.quantized(problem, bits, scale, arrays)

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
        """The kernel; outside of training with MLX's own gradient: a step of decoding is not asked
        whether it is part of one. Of many queries MLX's own attention runs where a bool mask hides
        too little."""
        most = self.most_seen(problem, device)
        if most is None:
            return operation.launch(problem)
        keys = tile_skipping.keys_of_block(problem.head_dim)
        return operation.launch(problem, Looks(tile_skipping.BLOCK, keys, most))


def _takes_a_look(problem: Problem, device: Device) -> bool:
    """Whether it depends on a mask's elements which of two kernels is the faster one."""
    is_known = kernel.is_for_few(problem) or not kernel.reads_mask(problem)
    return not is_known and is_fused(problem, device)[0]


def _of_few(problem: Problem, parts: int, key_bytes: float | None = None) -> Work:
    """Whole tiles of queries on the keys that a window leaves; the keys, of so many bytes a number,
    once for each slice of the values, the results of the parts written and read."""
    p, cut = problem, cut_of(problem)
    keys = seen_keys(p)
    tiles = cut.blocks * cut.tiles
    dims = cut.slices * p.head_dim + p.value_head_dim
    products = p.batch * p.key_heads * tiles * cut.rows * keys * dims
    moved = (key_bytes or p.item_bytes) * p.batch * p.key_heads * keys * dims
    rows = p.batch * p.query_heads * p.query_length
    moved += p.item_bytes * rows * (p.head_dim + p.value_head_dim)
    if kernel.reads_mask(p):
        moved += (p.item_bytes if p.mask == "additive" else 1) * p.score_count
    return Work(products, moved + 2 * parts, 2)


def _of_many(problem: Problem, copies: int, share: float) -> Work:
    """That share of the tiles; q, k and v may have to be laid out anew before. A bool mask is read
    once to find them, and then by each head."""
    seen = problem.score_count * share
    moved = inputs(problem) + 2 * copies
    if kernel.reads_mask(problem):
        return Work(
            fused_products(problem, seen), moved + _numbers_of_mask(problem) + int(seen), 10
        )
    return Work(fused_products(problem, seen), moved, 4)


def _of_training(problem: Problem, copies: int) -> Work:
    """The forward kernel, and two backward, which compute the tiles' scores, and what is wanted of
    their weights, once each. Together they read and write four times what has the size of q, k, v
    and the output: those, their gradients, and each again. The output's gradient, too, may have to
    be laid out anew before."""
    p = problem
    seen = p.score_count * (1 - p.skipped_share(tile_skipping.BLOCK))
    # Scores twice and the gradients of queries and keys; what is wanted of the weights twice, and
    # the gradient of the values.
    backward = seen * (4 * p.head_dim + 3 * p.value_head_dim)
    largest = max(p.head_dim, p.value_head_dim)
    slower = next(times for dim, times in _BACKWARD_SLOWER.items() if largest <= dim)
    products = fused_products(p, seen) + slower * backward
    return Work(products, 4 * inputs(p) + 2 * (copies + p.output_bytes), 7)


def _numbers_of_mask(problem: Problem) -> int:
    """The elements of the mask that a kernel for many queries reads, of all queries and keys."""
    if not kernel.reads_mask(problem):
        return 0
    return prod(problem.mask_shape[:-2]) * problem.query_length * problem.key_length


metal_kernel = MetalKernel()
