"""The text of a kernel for Metal as C++, and compiled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

INCLUDE = Path(__file__).with_name("include")
COMPILER = next(
    filter(None, (shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++"))), None
)
# Hidden, or kernels of one name would share their memory. What MLX's own text says twice, or does
# not use, is no concern of ours. A jump to another fiber would be taken for a fault by what
# _FORTIFY_SOURCE adds.
FLAGS = ("-std=c++20", "-O1", "-w", "-fvisibility=hidden", "-U_FORTIFY_SOURCE")
_MAIN = """
extern "C" [[gnu::visibility("default")]] int launch(
    void** b, const unsigned* grid, const unsigned* group, int last_first) {{
  const uint3 threads(group[0], group[1], group[2]), size(grid[0], grid[1], grid[2]);
  const uint3 groups(size.x / threads.x, size.y / threads.y, size.z / threads.z);
  for (uint z = 0; z < groups.z; ++z) {{
    for (uint y = 0; y < groups.y; ++y) {{
      for (uint x = 0; x < groups.x; ++x) {{
        const uint3 at = last_first ? groups - uint3(x + 1, y + 1, z + 1) : uint3(x, y, z);
        const auto body = [&](uint i) {{
          const uint3 own(i % threads.x, i / threads.x % threads.y, i / threads.x / threads.y);
          {function}({arguments});
        }};
        const int fault = emulated::run(threads.x * threads.y * threads.z, last_first, body);
        if (fault) return fault;
      }}
    }}
  }}
  return 0;
}}
"""
_ATTRIBUTES = {
    "simdgroup_index_in_threadgroup": "i / 32",
    "thread_index_in_simdgroup": "i % 32",
    "thread_index_in_threadgroup": "i",
    "thread_position_in_grid": "at * threads + own",
    "thread_position_in_threadgroup": "own",
    "threadgroup_position_in_grid": "at",
    "threadgroups_per_grid": "groups",
    "threads_per_grid": "size",
    "threads_per_threadgroup": "threads",
}
_SHARED = re.compile(r"(?m)(^|[;{])(\s*)threadgroup (\w+) (\w+)(\[[^;]*\]);")
_AS_STATIC = r"\1\2static \3 \4\5; emulated::clear(\4);"
# What a simdgroup holds of a matrix, in MLX's own headers: an index beyond it is to show.
_HELD = re.compile(r"\bval_frags\[([^\]]+ [^\]]+)\]")
_AS_CHECKED = r"val_frags[emulated::within(\1, kNumFrags)]"
# Of Apple's headers there is one, which comes first.
_UNKNOWN = re.compile(r"#pragma .*|#include <metal_\w+>|\[\[threadgroup\(\d+\)\]\]")
_INCLUDED = re.compile(r'(?m)^#include "(mlx/[^"]+)"')
_HEADER = "#include <metal_stdlib>\nusing namespace metal;\n"


class Failure(RuntimeError):  # as MLX has it of Apple's compiler
    """A kernel that does not compile, whose threads wait for ever, that writes beyond its outputs,
    or whose result depends on the order of its simdgroups."""


def as_cpp(text: str) -> str:
    """The text of a kernel as C++, with a function `launch` that runs it for a whole grid."""
    host = re.search(r"decltype\((\w+<.*?>)\) ", text, re.S)
    body = text[: text.index("template [[host_name")] if host else text
    function = host.group(1) if host else re.search(r"\[\[kernel\]\] void (\w+)", body).group(1)
    arguments = []
    for parameter in parameters_of(body):
        attribute, number = re.search(r"\[\[(\w+)(?:\((\d+)\))?\]\]", parameter).groups()
        if attribute == "buffer":
            type = re.sub(r"\b(device|constant|const)\b", "", parameter).split()[0].rstrip("*&")
            arguments.append(f"{'*' if '&' in parameter else ''}static_cast<{type}*>(b[{number}])")
        else:
            arguments.append(_ATTRIBUTES[attribute])
    body = _plain(body)
    main = _MAIN.format(function=function, arguments=", ".join(arguments))
    return f"{_HEADER}{body}\n{main}"


def flattened(header: str, folders: Sequence[Path]) -> str:
    """A header of MLX's, such as `mlx/backend/metal/...`, with the others that it includes in their
    places, as C++; each is taken from the first of `folders` that has it."""
    seen: set[str] = set()

    def text_of(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        path = next(folder / name for folder in folders if (folder / name).exists())
        text = path.read_text(encoding="utf-8")
        return _INCLUDED.sub(lambda found: text_of(found.group(1)), text)

    return _plain(text_of(header))


def _plain(text: str) -> str:
    """Without what C++ does not know; memory of a threadgroup is there once."""
    return _HELD.sub(_AS_CHECKED, _SHARED.sub(_AS_STATIC, _UNKNOWN.sub("", text)))


def parameters_of(text: str) -> list[str]:
    found = re.search(r"\[\[kernel\]\] void \w+\((.*?)\) \{", text, re.S)
    assert found is not None
    return [parameter.strip() for parameter in found.group(1).split(",\n")]


def buffers(text: str) -> list[str]:
    """The names of the parameters that are memory, in their order."""
    return [
        name
        for parameter in parameters_of(text)
        for name in re.findall(r"(\w+) \[\[buffer\(", parameter)
    ]


_folder = tempfile.TemporaryDirectory(prefix="metal-emulated-")


def compiled(source: str, name: str, *flags: str) -> Path:
    """A program or library of that C++ text, until this process ends. Raises Failure."""
    path = Path(_folder.name, name)
    path.with_suffix(".cpp").write_text(source, encoding="utf-8")
    includes = [f"-I{_precompiled()}", *flags, f"-I{INCLUDE}"]
    command = [str(COMPILER), *FLAGS, *includes, str(path.with_suffix(".cpp")), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(done.stderr)
    return path


@lru_cache(maxsize=1)
def _precompiled() -> Path:
    """The folder of the shim's header in the compiler's own form: most of a kernel's compilation is
    the reading of C++'s headers."""
    folder = Path(_folder.name, "precompiled")
    folder.mkdir()
    header = INCLUDE / "metal_stdlib"
    command = [str(COMPILER), *FLAGS, "-fPIC", "-x", "c++-header", str(header)]
    subprocess.run([*command, "-o", str(folder / "metal_stdlib.gch")], check=True)
    return folder
