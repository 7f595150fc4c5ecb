"""Whether a kernel for Metal keeps its pointers to their address spaces: clang knows those of
OpenCL, and says where the same text does not keep to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import clang.cindex
import mlx.core as mx
from metal_kernel import emulated
from metal_kernel.translation import INCLUDE

_ARGUMENTS = ["-x", "clcpp", "-cl-std=clc++2021", "-cl-no-stdinc", "-Wno-c++11-narrowing"]
_UNKNOWN = re.compile(r"(?m)^#include <metal_\w+>|^#pragma METAL.*")
_VECTOR = re.compile(r"\b(float2|short2|int2|ulong[23])(?=\()")
_VECTOR_IN_BRACES = re.compile(r"\b(short2)\{([^}]*)\}")
_THREADGROUP = re.compile(r"(?m)^ *threadgroup (\w+) (\w+)\[[^;]*\];")


def noting(found: list[str]) -> Callable[..., emulated.Kernel]:
    """In the place of `mx.fast.metal_kernel`: of a kernel only its text is looked at, whose faults
    are added to `found`."""

    class Read(emulated.Kernel):
        def __call__(self, **call: Any) -> list[mx.array]:
            found.extend(faults(self.text(**call)))
            shapes, dtypes = call["output_shapes"], call["output_dtypes"]
            return [mx.zeros(*one) for one in zip(shapes, dtypes, strict=True)]

    def kernel(*names: Any, **made: Any) -> Read:
        return Read(emulated.Arguments(*names, **made))

    return kernel


def faults(text: str) -> list[str]:
    """What clang has against the text that MLX makes of a kernel."""
    index = clang.cindex.Index.create()
    name = "kernel.clcpp"
    unit = index.parse(name, _ARGUMENTS, unsaved_files=[(name, as_opencl(text))])
    return [str(one) for one in unit.diagnostics if one.severity >= clang.cindex.Diagnostic.Error]


def as_opencl(text: str) -> str:
    """The kernel as a function of C++ for OpenCL, in which neither a template nor a function has
    memory of a threadgroup: it becomes an argument."""
    shared = _THREADGROUP.findall(text)
    text = _THREADGROUP.sub("", text)
    arguments = "".join(f", threadgroup {type}* {name}" for type, name in shared)
    text = re.sub(r"(\[\[kernel\]\] void \w+\(.*?)\) \{", rf"\1{arguments}) {{", text, flags=re.S)
    text = re.sub(r"\[\[(?:kernel|host_name|buffer|\w+_(?:in|per)_\w+)(?:\([^)]*\))?\]\]", "", text)
    text = _UNKNOWN.sub("", text)
    # Vectors are written in another way.
    text = _VECTOR.sub(r"(\1)", text)
    text = _VECTOR_IN_BRACES.sub(r"(\1)(\2)", text)
    # A pointer and a number of a type of MLX's own, which is one for Metal's compiler alone.
    text = text.replace("src += str_y;", "src += int(str_y);")
    prelude = (INCLUDE / "address_spaces.h").read_text(encoding="utf-8")
    return f"{prelude}\n{text}"
