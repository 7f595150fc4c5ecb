"""Compiled kernels where MLX looks for them.

MLX keeps the kernels that it generates itself on disk. For a custom kernel it looks there too, but writes nothing, and
so compiles it in every process anew, for two to three seconds, most of them for headers that ours does not need.
Compiled without those, in a quarter of a second, and put there under the name that MLX gives it, it is compiled once
for a machine. Where MLX does not take it, which a first kernel tells, there is no CUDA kernel: see `why_not`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import mlx.core as mx

from ...environment import whole_files
from ...environment.log import logger
from ...environment.variables import may_build
from . import nvrtc
from .source import PRELUDE, Input, Source

_NAMESPACE = "mlx::core::cu"
_MASK = 2**64 - 1
_MODE = 0o644  # the folder is everybody's
# Gives 1 if it was compiled here, with the prelude, and 0 if MLX did it.
_PROBE = """
#ifdef FLASH_PRELUDE
  out[0] = like[0] + 1;
#else
  out[0] = like[0];
#endif
"""


def put(source: Source) -> None:
    """Compiles `source` into MLX's folder, unless it is there. Raises CompileError, or OSError where the folder cannot
    be written."""
    target = folder()
    missing = [name for name in modules(source) if not (target / f"{name}.ptx").exists()]
    if not missing:
        return
    # In the place of the headers that MLX would give.
    headers = {
        "mlx/backend/cuda/device/utils.cuh": PRELUDE.read_text(encoding="utf-8"),
        "cooperative_groups.h": "",
    }
    function = f"{_NAMESPACE}::{source.function}"
    cubin, lowered = nvrtc.compile(source.text, function, headers, source.capability)
    target.mkdir(parents=True, exist_ok=True)
    for name in missing:
        whole_files.write(target / f"{name}.txt", f"{function}\t{lowered}\n".encode(), _MODE)
        whole_files.write(target / f"{name}.ptx", cubin, _MODE)  # last: MLX looks for this one


@lru_cache(maxsize=1)
def why_not(capability: tuple[int, int]) -> str:
    """Why MLX cannot have kernels from here; empty where it can. A kernel of one line says so once for an MLX, on the
    GPU; the answer is kept beside the kernels."""
    if not may_build():
        return "MLX_FLASH_BUILD=0 forbids to build it"
    probe = Source("flash_probe", capability, (Input("like", "float"),), "float", _PROBE)
    try:
        answer = folder() / f"{probe.name}.answer"
        if not answer.exists():
            put(probe)
            said = b"" if _is_taken(probe) else b"this release of MLX does not look for it on disk"
            whole_files.write(answer, said, _MODE)
        return answer.read_text(encoding="utf-8")
    except nvrtc.CompileError as error:
        return str(error)
    except OSError as error:
        return f"MLX's folder for kernels cannot be written ({error.strerror}: {folder()}); MLX_PTX_CACHE_DIR names one"
    except RuntimeError as error:
        logger.debug("flash attention: the first kernel failed", exc_info=True)
        return f"the first kernel failed: {str(error).splitlines()[0]}"


def _is_taken(probe: Source) -> bool:
    with mx.stream(mx.new_stream(mx.gpu)):  # the default one may have much to do yet
        (out,) = probe.kernel()(
            inputs=[mx.zeros((1,))],
            output_shapes=[(1,)],
            output_dtypes=[mx.float32],
            grid=(1, 1, 1),
            threadgroup=(1, 1, 1),
        )
        return bool(out.item())


def folder() -> Path:
    """Where MLX keeps kernels (`ptx_cache_dir` in its jit_module.cpp); it need not exist."""
    if named := os.environ.get("MLX_PTX_CACHE_DIR"):
        return Path(named)
    temporary = next(filter(None, map(os.environ.get, ("TMPDIR", "TMP", "TEMP", "TEMPDIR"))), "/tmp")
    return Path(temporary, "mlx", mx.__version__, "ptx")  # type: ignore[attr-defined]  # missing in MLX's stubs


def modules(source: Source) -> tuple[str, str]:
    """The names under which MLX looks for `source`: the first up to 0.32.1, the second since."""
    return source.function, f"{source.function}_{string_hash(source.text.encode()):x}"


def string_hash(data: bytes, seed: int = 0xC70F6907) -> int:
    """std::hash<std::string> of libstdc++: 64-bit MurmurHash2 (Austin Appleby) with that seed."""
    multiplier = 0xC6A4A7935BD1E995

    def mixed(word: int) -> int:
        word = word * multiplier & _MASK
        return (word ^ word >> 47) * multiplier & _MASK

    value = seed ^ (len(data) * multiplier & _MASK)
    whole = len(data) & ~7
    for start in range(0, whole, 8):
        value = (value ^ mixed(int.from_bytes(data[start : start + 8], "little"))) * multiplier & _MASK
    if len(data) > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * multiplier & _MASK
    value = (value ^ value >> 47) * multiplier & _MASK
    return value ^ value >> 47
