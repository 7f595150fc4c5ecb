"""Compiled kernels where MLX looks for them.

MLX keeps the kernels that it generates itself on disk. For a custom kernel it looks there too, but
writes nothing, and so compiles it in every process anew, for two to three seconds, most of them
for headers that ours does not need. Compiled without those, in a quarter of a second, and put
there under the name that MLX gives it, it is compiled once for a machine. Where MLX does not take
it, which a first kernel tells, there is no CUDA kernel: see `why_not`. Nor is there one where
others own MLX's folder or can write to it: MLX would run what they put there under our kernel's
name.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import mlx.core as mx

from ....environment import private_files
from ....environment.log import logger
from ....environment.variables import may_build
from ....stock.release import mlx_version
from . import nvrtc
from .source import PRELUDE, Array, Source

_NAMESPACE = "mlx::core::cu"
_MASK = 2**64 - 1
# As MLX makes them: it fails in the programs of other users where they may not look into the
# folder.
_FOLDER_MODE, _MODE = 0o755, 0o644
_NOT_TAKEN = "this release of MLX does not look for it on disk"
_MOST_WORDS = 2**10  # bytes, of an answer
# Gives 1 if it was compiled here, with the prelude, and 0 if MLX did it.
_PROBE = """
#ifdef FLASH_PRELUDE
  out[0] = like[0] + 1;
#else
  out[0] = like[0];
#endif
"""


def put(source: Source) -> None:
    """Compiles `source` into MLX's folder, unless it is there. Raises CompileError;
    `private_files.NotPrivate` where others own the folder or can write to it; OSError where it
    cannot be written."""
    names = modules(source)
    if all(_has(name) for name in names):
        return
    # In the place of the headers that MLX would give.
    headers = {
        "mlx/backend/cuda/device/utils.cuh": PRELUDE.read_text(encoding="utf-8"),
        "cooperative_groups.h": "",
    }
    function = f"{_NAMESPACE}::{source.function}"
    cubin, lowered = nvrtc.compile(source.text, function, headers, source.capability)
    target = private_files.folder(folder(), make=_FOLDER_MODE)
    for name in names:
        private_files.write(target / f"{name}.txt", f"{function}\t{lowered}\n".encode(), _MODE)
        private_files.write(target / f"{name}.ptx", cubin, _MODE)  # last: MLX looks for this one


def _has(name: str) -> bool:
    """Whether a kernel is in MLX's folder, and not as a link or as another user's file."""
    try:
        target = private_files.folder(folder())
    except FileNotFoundError:
        return False
    return all(private_files.is_private(target / f"{name}.{ending}") for ending in ("ptx", "txt"))


@lru_cache(maxsize=1)
def why_not(capability: tuple[int, int]) -> str:
    """Why MLX cannot have kernels from here; empty where it can. A kernel of one line says so once
    for an MLX, on the GPU; the answer is kept beside the kernels. Where the folder is not to be
    trusted, a warning says it."""
    if not may_build():
        return "MLX_FLASH_BUILD=0 forbids to build it"
    like, out = Array("like", "float"), Array("out", "float")
    probe = Source("flash_probe", capability, (like,), (out,), _PROBE)
    try:
        return _answer(probe)
    except nvrtc.CompileError as error:
        return str(error)
    except private_files.NotPrivate as error:
        reason = f"MLX's folder for kernels is not used ({error}); MLX_PTX_CACHE_DIR names one"
        logger.warning("flash attention: no CUDA kernel, so attention is slower: %s", reason)
        return reason
    except OSError as error:
        return (
            f"MLX's folder for kernels cannot be written ({error.strerror}: {folder()}); "
            "MLX_PTX_CACHE_DIR names one"
        )
    except RuntimeError as error:
        logger.debug("flash attention: the first kernel failed", exc_info=True)
        return f"the first kernel failed: {str(error).splitlines()[0]}"


def _answer(probe: Source) -> str:
    """Why MLX does not take `probe` from its folder, empty where it does: as it was found once, or
    as it is found now, also where what is kept is none of the answers that there are."""
    put(probe)
    file = private_files.folder(folder()) / f"{probe.name}.answer"
    try:
        kept = private_files.read(file, _MOST_WORDS)
        if kept in (b"", _NOT_TAKEN.encode()):
            return kept.decode()
    except OSError:
        pass  # none, or none to be trusted
    answer = "" if _is_taken(probe) else _NOT_TAKEN
    private_files.write(file, answer.encode(), _MODE)
    return answer


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
    for name in ("TMPDIR", "TMP", "TEMP", "TEMPDIR"):  # as C++'s temp_directory_path
        if temporary := os.environ.get(name):
            return Path(temporary, "mlx", mlx_version(), "ptx")
    return Path("/tmp", "mlx", mlx_version(), "ptx")


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
        word = int.from_bytes(data[start : start + 8], "little")
        value = (value ^ mixed(word)) * multiplier & _MASK
    if len(data) > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * multiplier & _MASK
    value = (value ^ value >> 47) * multiplier & _MASK
    return value ^ value >> 47
