"""CUDA's runtime compiler, the library that MLX itself has loaded."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from typing import Any

from ....environment.log import logger

# The sonames of the CUDA releases that MLX is built for.
_LIBRARIES = ("libnvrtc.so.13", "libnvrtc.so.12")


class CompileError(Exception):
    """Why there is no kernel, in one line."""


def compile(
    text: str, function: str, headers: dict[str, str], capability: tuple[int, int]
) -> tuple[bytes, str]:
    """The cubin of `text` for GPUs of that compute capability, and the name that `function`, a
    qualified one, has in it. `headers` are contents by the names under which they are included.
    Raises CompileError."""
    nvrtc = _library()
    program = ctypes.c_void_p()
    names, contents = _strings(headers.keys()), _strings(headers.values())
    _check(
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), text.encode(), b"flash.cu", len(headers), contents, names
        )
    )
    try:
        expression = function.encode()
        _check(nvrtc.nvrtcAddNameExpression(program, expression))
        major, minor = capability
        # As MLX compiles: the instructions of that very architecture.
        architecture = f"--gpu-architecture=sm_{major}{minor}{'a' if major >= 9 else ''}"
        options = _strings([architecture, "--device-as-default-execution-space"])
        failed = nvrtc.nvrtcCompileProgram(program, len(options), options)
        printed = _bytes(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
        log = printed.decode(errors="replace")
        if failed:
            lines = [line for line in log.splitlines() if "error" in line]
            raise CompileError((lines or ["CUDA's compiler failed"])[0])
        logger.debug("flash attention: CUDA's compiler says: %s", log.rstrip("\0\n") or "nothing")
        lowered = ctypes.c_char_p()
        _check(nvrtc.nvrtcGetLoweredName(program, expression, ctypes.byref(lowered)))
        assert lowered.value is not None
        return _bytes(program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN), lowered.value.decode()
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@lru_cache(maxsize=1)
def _library() -> Any:
    for name in _LIBRARIES:
        try:
            # Loaded already or not at all: another one than MLX's might not know the GPU.
            return ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
    raise CompileError("MLX has not loaded CUDA's compiler (libnvrtc)")


def _strings(items: Any) -> Any:
    encoded = [item.encode() for item in items]
    return (ctypes.c_char_p * len(encoded))(*encoded)


def _bytes(program: ctypes.c_void_p, size_of: Any, content_of: Any) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(content_of(program, buffer))
    return buffer.raw


def _check(status: int) -> None:
    if status:
        raise CompileError(f"CUDA's compiler failed with status {status}")
