"""Whether a kernel for Metal keeps its pointers to their address spaces: clang knows those of
OpenCL, and says where the same text does not keep to them."""

from __future__ import annotations

import re

import clang.cindex
from metal_kernel.translation import INCLUDE

_ARGUMENTS = ["-x", "clcpp", "-cl-std=clc++2021", "-cl-no-stdinc"]
_THREADGROUP = re.compile(r"(?m)^ *threadgroup (\w+) (\w+)\[[^;]*\];")


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
    # Vectors are written in another way.
    text = re.sub(r"\bfloat2\(", "(float2)(", text)
    prelude = (INCLUDE / "address_spaces.h").read_text(encoding="utf-8")
    return f"{prelude}\n{text}"
