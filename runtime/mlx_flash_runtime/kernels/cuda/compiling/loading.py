"""A kernel as a function of its arrays, compiled when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import mlx.core as mx

from ....environment import private_files
from ....environment.log import logger
from . import cache
from .nvrtc import CompileError
from .source import Source

# Called as MLX has it, with `inputs`, the shapes and types of the outputs and the sizes of the
# launch; gives the outputs.
Kernel = Callable[..., list[mx.array]]


@lru_cache(maxsize=256)
def kernel_of(source: Source, shared_memory: int) -> Kernel:
    """The kernel, compiled, with so many bytes of shared memory for a block of threads."""
    compiles(source)
    kernel: Kernel = source.kernel(ensure_row_contiguous=False, shared_memory=shared_memory)
    return kernel


@lru_cache(maxsize=256)
def compiles(source: Source) -> bool:
    """Whether it does, here; it is compiled, unless it was before. The first time that it does not,
    a warning says why."""
    try:
        cache.put(source)
    except CompileError as error:
        logger.warning(
            "flash attention: MLX's own attention, as the CUDA kernel does not compile: %s", error
        )
        return False
    except private_files.NotPrivate as error:
        logger.warning(
            "flash attention: MLX's own attention, as its folder for kernels is not used: %s", error
        )
        return False
    except OSError as error:
        logger.warning(
            "flash attention: MLX compiles the CUDA kernel itself, which takes it seconds: %s",
            error,
        )
    return True
