"""A custom kernel and the text that MLX makes of it, to which its compiled form is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

_DEVICE_CODE = Path(__file__).parents[1] / "device"
PRELUDE = _DEVICE_CODE / "prelude.cuh"  # stands for MLX's own header


class Array(NamedTuple):
    """An array that a kernel reads or writes: its name, and its element's type in CUDA."""

    name: str
    type: str


@dataclass(frozen=True)
class Source:
    """A kernel as `mx.fast.cuda_kernel` takes it: the body of a function of `inputs` that writes
    `outputs`, for GPUs of one compute capability. It may use what `include`, a header of `device/`,
    has. `bounds` are how many threads a block of them has, and how many blocks at least are to be
    on one multiprocessor at once. `label` begins the name that it has among compiled kernels."""

    label: str
    capability: tuple[int, int]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    body: str
    include: str = ""
    bounds: tuple[int, int] = (1, 1)

    @cached_property
    def name(self) -> str:
        """A name that no other content has: what was compiled of it once is right for ever."""
        content = repr((self, *_headers()))
        return f"{self.label}_{sha256(content.encode()).hexdigest()[:16]}"

    def kernel(self, **options: Any) -> Any:
        """The kernel itself, as MLX makes it; `options` are those of `mx.fast.cuda_kernel`."""
        return mx.fast.cuda_kernel(
            name=self.name,
            input_names=[one.name for one in self.inputs],
            output_names=[one.name for one in self.outputs],
            source=self.body,
            header=self.header,
            **options,
        )

    @property
    def header(self) -> str:
        """Goes before the function, whose declaration is MLX's: so its bounds come by way of a
        macro. By reference, as MLX reads the whole text at every launch."""
        include = f'#include "{_DEVICE_CODE / self.include}"\n' if self.include else ""
        threads, blocks = self.bounds
        return (
            f"{include}#undef __global__\n"
            f"#define __global__ __attribute__((global)) __launch_bounds__({threads}, {blocks})\n"
        )

    @property
    def function(self) -> str:
        """What MLX calls the function, in its namespace."""
        return f"custom_kernel_{self.name}"

    @cached_property
    def text(self) -> str:
        """What MLX makes of it (`build_kernel` in its custom_kernel.cpp), to the letter."""
        parameters = []
        for name, type in self.inputs:
            parameters.append(f"    const {type}* {name},\n")
            for kind, word in (("Shape", "shape"), ("Strides", "strides")):
                if f"{name}_{word}" in self.body:
                    parameters.append(f"    const __grid_constant__ {kind} {name}_{word},\n")
        parameters += [
            ",\n".join(f"    {type}* {name}" for name, type in self.outputs),
            ") {\n",
        ]
        return (
            '\n#include "mlx/backend/cuda/device/utils.cuh"\n\n#include <cooperative_groups.h>\n\n'
            f"{self.header}namespace mlx::core::cu {{\n\nnamespace cg = cooperative_groups;\n\n"
            f"__global__ void {self.function}(\n{''.join(parameters)}"
            f"{self.body}\n}}\n\n}} // namespace mlx::core::cu\n"
        )


@lru_cache(maxsize=1)
def _headers() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(_DEVICE_CODE.glob("*.cuh")))
