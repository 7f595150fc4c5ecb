"""What every route has, with defaults for what most of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import mlx.core as mx

from .. import stock
from ..kernels.quantization import Bits
from ..ops.work import Work
from ..problem import Attend, Call, Device, Launch, Problem, as_float


class Route:
    """One way to compute attention: a name, a predicate that gives its reason, and the function.

    A route says whether it `holds` (can run a problem on a device, exactly) and whether it `pays`
    (is the fastest where it holds). It gives the function in one of two forms, of which the other
    follows: `attend`, of a `Call`; or `launch`, of MLX's own arguments, where making a `Call` costs
    too much.
    """

    # What reports, `explain` and `MLX_FLASH_ROUTE` call it.
    name: str
    # Whether it gains anything over MLX's own function: not the routes that are left in the end.
    improves = True
    # Whether it is MLX's own function with the arguments as they are.
    is_stock = False
    # Whether its function is right, or finds that it is not and calls MLX's, for keys and values of
    # other types than the problem's, for values that do not match the keys, and where another
    # device is the default: a call is then found by less, see `patching/patch.py`.
    judges_the_rest = False
    # Whether it finds out in the middle of a call that it is part of a gradient, see `launch`: to
    # ask MLX before costs more than such a route gains.
    finds_gradients = False

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Whether the route can run `problem` on `device`, exactly, and why or why not (a phrase
        without sizes)."""
        raise NotImplementedError

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Whether it is faster, where it holds, than the routes that are asked after it, or needed
        for memory; and the reason in a phrase. A calibration of this machine (`mlx-flash tune`)
        knows better."""
        raise NotImplementedError

    def block_size(self, problem: Problem, device: Device) -> int | None:
        """The block size that it would choose; None where it has no blocks that can be chosen."""
        return None

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """Predicted bytes at the peak of one forward call, beyond its inputs and its output."""
        return 0

    def work(self, problem: Problem, device: Device, block_size: int | None) -> Work | None:
        """What a call costs by counting, for a route that is chosen by that; None for others."""
        return None

    def attend(self, problem: Problem, device: Device, block_size: int | None) -> Attend:
        """The attention itself for calls of `problem`; whatever depends on the problem alone is
        worked out here, once, and not in each call. Computes nothing."""
        launch = self.launch(problem, device, block_size)
        is_causal = problem.mask == "causal"

        def attend(call: Call) -> mx.array:
            mask = "causal" if is_causal else call.mask
            return launch(call.q, call.k, call.v, scale=call.scale, mask=mask, sinks=call.sinks)

        return attend

    def launch(
        self,
        problem: Problem,
        device: Device,
        block_size: int | None,
        in_gradient: Callable[[], Launch] | None = None,
    ) -> Launch:
        """`attend` with MLX's own arguments. A scale that is no number goes to MLX, which words
        the error. `in_gradient` is for a route that finds out in the middle of a call that it is
        part of a gradient: it gives the function for such a call."""
        attend = self.attend(problem, device, block_size)
        takes_mask = problem.has_array_mask

        def run(q: Any, k: Any, v: Any, *, scale: Any, mask: Any, sinks: Any) -> mx.array:
            factor = as_float(scale)
            if factor is None:
                return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)
            return attend(Call(problem, q, k, v, factor, mask if takes_mask else None, sinks))

        return run

    def first_calls(self, problem: Problem, device: Device) -> tuple[int, str]:
        """How many calls of a shape that is new to the process should run on this route before
        MLX's fused kernel, which is the faster one once it has planned for the shape; and why."""
        return 0, ""

    def prepare(self, problem: Problem, device: Device, then: Callable[[], None]) -> None:
        """Told of each problem that is planned: has made in the background what the route lacks for
        it, if it is worth that, and calls `then` when it is there."""

    def run(self, call: Call, device: Device, block_size: int | None = None) -> mx.array:
        """One call by this route alone."""
        return self.attend(call.problem, device, block_size)(call)


class TakesQuantized(Protocol):
    """A route with a kernel that reads keys and values as `mx.quantize` packs them."""

    name: str

    def takes_quantized(self, problem: Problem, device: Device) -> bool:
        """Whether the kernel is for `problem`, that of the keys and values dequantized."""

    def pays_quantized(self, problem: Problem, bits: Bits, device: Device) -> bool:
        """Whether it then is the faster way."""

    def reads_mask(self, problem: Problem) -> bool:
        """Whether the mask is an array for the kernel, too."""

    def quantized(
        self,
        problem: Problem,
        bits: Bits,
        device: Device,
        scale: float,
        arrays: Sequence[mx.array],
    ) -> mx.array | None:
        """Attention, of the shape of its output: `arrays` are q, the three arrays of the keys,
        those of the values, then the mask where `reads_mask`, and sinks if any. None inside of the
        user's transformations, and where the kernel does not compile."""
