"""`mx.fast.metal_kernel` on a machine without Metal.

MLX itself writes the text that Apple's compiler would get: it does so where a kernel is called
while a function is exported. That text is compiled here as C++, with `include/metal_stdlib` in the
place of Apple's header, and its threads run as fibers.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from metal_kernel.translation import COMPILER, INCLUDE, Failure, as_cpp, buffers, compiled
from numpy.typing import NDArray

from mlx_flash_runtime.kernels.metal import steel

# Rows of NaN between the matrices of an array that a kernel may be given with any strides, and
# numbers of it before and after each array.
_ROWS_BETWEEN, _MARGIN = 3, 64

_FAULTS = {
    1: "some of a threadgroup's threads wait for the others for ever",
    2: "a threadgroup has more memory than the 32 KiB that Metal gives it",
    3: "an index is beyond what a simdgroup holds of a matrix",
}


def why_not() -> str | None:
    """Why nothing can be run so here; None where it can."""
    if sys.platform != "linux":
        return "fibers are those of Linux's C library"
    if COMPILER is None:
        return "there is no C++ compiler"
    one = Kernel(Arguments("one", ["x"], ["y"], "y[0] = x[0];"))
    shape = {"output_shapes": [(1,)], "output_dtypes": [mx.float32]}
    try:
        one.text([mx.zeros(1)], grid=(1, 1, 1), threadgroup=(1, 1, 1), **shape)
    except RuntimeError as error:
        return f"this MLX writes no kernel without a Mac: {error}"
    return None


class Arguments(NamedTuple):
    """What a kernel was made with."""

    name: str
    input_names: Sequence[str]
    output_names: Sequence[str]
    source: str
    header: str = ""
    ensure_row_contiguous: bool = True


class Kernel:
    """In the place of what `mx.fast.metal_kernel` gives: called in the same way, it gives the
    outputs, computed."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._kernel = _METAL_KERNEL(**arguments._asdict())

    def text(self, inputs: Sequence[mx.array], **call: Any) -> str:
        """What MLX would give to Apple's compiler, without its own header."""

        def called(*arrays: mx.array) -> Any:
            return self._kernel(inputs=list(arrays), verbose=True, **call)

        with tempfile.TemporaryDirectory() as folder, _printed() as read:
            mx.export_function(str(Path(folder, "function")), called, *inputs)
            printed = read()
        return printed[printed.index("```\n") + 4 : printed.rindex("```")]

    def __call__(
        self,
        *,
        inputs: Sequence[mx.array],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[mx.Dtype],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        **call: Any,
    ) -> list[mx.array]:
        assert all(whole % part == 0 for whole, part in zip(grid, threadgroup, strict=True))
        call |= {"output_shapes": output_shapes, "output_dtypes": output_dtypes}
        text = self.text(inputs, grid=grid, threadgroup=threadgroup, **call)
        launch = _compiled(text)
        strided = not self._arguments.ensure_row_contiguous
        contents = [_as_numpy(x) for x in inputs]
        results = []
        for last_first in (False, True):
            # The second time with columns apart, too, and from the last threadgroup to the first.
            arrays = [_laid_out(x, strided, 1 + last_first) for x in contents]
            known = dict(zip(self._arguments.input_names, arrays, strict=True))
            outputs = [
                _laid_out(np.full(shape, _nan(dtype)))
                for shape, dtype in zip(output_shapes, output_dtypes, strict=True)
            ]
            known |= dict(zip(self._arguments.output_names, outputs, strict=True))
            pointers = [_pointer(name, known) for name in buffers(text)]
            fault = launch(
                (ctypes.c_void_p * len(pointers))(*(x.ctypes.data for x in pointers)),
                (ctypes.c_uint * 3)(*grid),
                (ctypes.c_uint * 3)(*threadgroup),
                int(last_first),
            )
            if fault:
                raise Failure(_FAULTS[fault])
            if not all(_margins_are_whole(x) for x in outputs):
                raise Failure("it writes beyond its outputs")
            results.append(outputs)
        for one, other in zip(*results, strict=True):
            if one.tobytes() != other.tobytes():
                raise Failure("its result depends on the order of the simdgroups")
        return [_as_mlx(x, dtype) for x, dtype in zip(results[0], output_dtypes, strict=True)]


_METAL_KERNEL = mx.fast.metal_kernel


def header(name: str) -> str:
    """A header of MLX's kernels, in the place of `steel._read`: ours, where C++ needs another."""
    own = INCLUDE / name
    return own.read_text(encoding="utf-8") if own.exists() else _HEADER(name)


_HEADER = steel._read


def metal_kernel(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    source: str,
    header: str = "",
    ensure_row_contiguous: bool = True,
) -> Kernel:
    """In the place of `mx.fast.metal_kernel`."""
    return Kernel(Arguments(name, input_names, output_names, source, header, ensure_row_contiguous))


@cache  # as many as the tests have
def _compiled(text: str) -> Any:
    name = sha256(text.encode()).hexdigest()[:16]
    return ctypes.CDLL(str(compiled(as_cpp(text), name, "-shared", "-fPIC"))).launch


@contextmanager
def _printed() -> Iterator[Callable[[], str]]:
    """What C++ prints to the standard output meanwhile, as a function gives it."""
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile() as file:

        def read() -> str:
            file.seek(0)
            return file.read().decode()

        os.dup2(file.fileno(), 1)
        try:
            yield read
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def _nan(dtype: mx.Dtype) -> Any:
    if dtype == mx.bfloat16:
        return np.uint16(0x7FC0)
    return np.full((), np.nan, {mx.float32: np.float32, mx.float16: np.float16}[dtype])[()]


def _as_numpy(x: mx.array) -> NDArray[Any]:
    return np.array(x.view(mx.uint16)) if x.dtype == mx.bfloat16 else np.array(x)


def _as_mlx(x: NDArray[Any], dtype: mx.Dtype) -> mx.array:
    array = mx.array(np.ascontiguousarray(x))
    return array.view(mx.bfloat16) if dtype == mx.bfloat16 else array


def _laid_out(x: NDArray[Any], strided: bool = False, step: int = 1) -> NDArray[Any]:
    """A copy of `x` in the midst of bytes of ones, which are NaN in each type of floats; `strided`
    with rows of them after each of its matrices, and its columns `step` apart."""
    shape = list(x.shape)
    strided = strided and x.ndim > 2
    if strided:
        shape[-2] += _ROWS_BETWEEN
        shape[-1] *= step
    size = int(np.prod(shape))
    memory = np.full((size + 2 * _MARGIN) * x.itemsize, 0xFF, np.uint8).view(x.dtype)
    whole = memory[_MARGIN : _MARGIN + size].reshape(shape)
    own = whole[..., : x.shape[-2], ::step] if strided else whole
    own[...] = x
    return own


def _margins_are_whole(x: NDArray[Any]) -> bool:
    memory = x
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    ends = memory.view(np.uint8)
    bytes_of_margin = _MARGIN * x.itemsize
    return bool((ends[:bytes_of_margin] == 0xFF).all() and (ends[-bytes_of_margin:] == 0xFF).all())


def _pointer(name: str, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The memory of one parameter: an array, or what MLX says of its shape."""
    if name in arrays:
        return arrays[name]
    of, _, what = name.rpartition("_")
    x = arrays[of]
    if what == "shape":
        return np.array(x.shape, np.int32)
    if what == "strides":
        return np.array([stride // x.itemsize for stride in x.strides], np.int64)
    assert what == "ndim"
    return np.array([x.ndim], np.int32)
