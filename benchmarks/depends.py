"""Which code each result of this folder depends on, and whether it is still the code that was
measured.

A result keeps the commit, and a digest of each file or folder that its numbers depend on; comments
and docstrings don't count. Digests rather than git's history, which a shallow clone has none of.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_RUNTIME = "runtime/mlx_flash_runtime"
_BENCH = f"{_RUNTIME}/tools/bench"
_SUFFIXES = {".py", ".cpp", ".h", ".cuh", ".metal"}

# What an attention call of a patched program goes through; its backend's kernel apart.
_BLOCKS = (f"{_RUNTIME}/ops", f"{_RUNTIME}/routes/blockwise.py")
_CALL = (
    *_BLOCKS,
    f"{_RUNTIME}/routes/lowered.py",
    f"{_RUNTIME}/routes/query_blocks.py",
    f"{_RUNTIME}/routes/stock.py",
    f"{_RUNTIME}/lowerings",
    f"{_RUNTIME}/patching",
    f"{_RUNTIME}/planning",
    f"{_RUNTIME}/problem",
    f"{_RUNTIME}/stock",
)
_TIMED = (f"{_BENCH}/timing.py", f"{_BENCH}/inputs.py")
# How many queries and keys are cut for few queries.
_SPLIT_KEYS = tuple(
    f"{_RUNTIME}/kernels/{name}.py" for name in ("quantization", "rounding", "split_keys")
)
_IN_TURNS = "benchmarks/in_turns.py"
_MODELS = (f"{_BENCH}/models.py", f"{_BENCH}/workloads.py")
# By the result's name, without the machine: the code, whether the backend's kernel belongs to it,
# and what makes the numbers beside its own script in this folder.
DEPENDS: dict[str, tuple[tuple[str, ...], bool]] = {
    "compare": ((*_CALL, "fixtures/mlx_scripts/inference_scripts/mlx/inference.py"), True),
    "cpu_kernel": (_TIMED, True),
    "crossover": ((*_BLOCKS, *_TIMED), False),
    "cuda_kernel": (_TIMED, True),
    "cuda_training": (
        (*_TIMED, f"{_RUNTIME}/lowerings", f"{_RUNTIME}/routes/lowered.py"),
        True,
    ),
    "few_queries": ((*_TIMED, *_SPLIT_KEYS), True),
    "grid": ((*_CALL, *_TIMED, f"{_BENCH}/grid.py"), True),
    "handwritten_models": ((*_CALL, "codemods/flash_codemods/handwritten", _IN_TURNS), True),
    "integrator_speed": (("integrator", "codemods"), False),
    "memory": (_BLOCKS, False),
    "overhead": (_CALL, True),
    "plan": ((*_CALL, f"{_RUNTIME}/tools/memory"), True),
    "policy": ((*_CALL, *_MODELS), True),
    "pytorch": ((*_CALL, *_TIMED), True),
    "quantized_cache": ((*_CALL, *_MODELS, _IN_TURNS), True),
    "routes": ((*_CALL, *_TIMED, "benchmarks/route_cases.py"), True),
    "with_images": ((*_CALL, _IN_TURNS), True),
    "workflow": ((*_CALL, *_MODELS, f"{_BENCH}/workflow.py"), True),
}


def sources(name: str, backend: str) -> tuple[str, ...]:
    """The files and folders that a result depends on, by the name of its file without .json; none
    of a name that no measurement here has."""
    kind = next((kind for kind in DEPENDS if f"{name}_".startswith(f"{kind}_")), None)
    if kind is None:
        return ()
    found, with_kernel = DEPENDS[kind]
    if with_kernel:
        routes = sorted((ROOT / _RUNTIME / "routes").glob(f"{backend}_*.py"))
        found = (*found, f"{_RUNTIME}/kernels/{backend}")
        found += tuple(route.relative_to(ROOT).as_posix() for route in routes)
    script = f"benchmarks/{kind}.py"
    return (*found, script) if (ROOT / script).exists() else found


def provenance(name: str, backend: str) -> dict[str, Any]:
    """`commit` and `code`, the digest of each source, as a result keeps them with its machine."""
    code = {source: digest(ROOT / source) for source in sources(name, backend)}
    return {"commit": commit(), "code": code}


def changed(name: str, machine: dict[str, Any]) -> list[str] | None:
    """Those of a result's sources that are not as they were measured; None where the result does
    not say what was."""
    if "code" not in machine:
        return None
    then = machine["code"]
    now = sources(name, machine["backend"])
    gone = [source for source in then if source not in now]
    return gone + [source for source in now if then.get(source) != digest(ROOT / source)]


@cache
def digest(path: Path) -> str:
    """Of the code in a file or folder."""
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES)
    found = hashlib.sha256()
    for file in files:
        lines = code_of(file.read_text(encoding="utf-8"), file.suffix)
        found.update("\n".join([file.relative_to(ROOT).as_posix(), *lines, ""]).encode())
    return found.hexdigest()[:12]


def code_of(text: str, suffix: str) -> list[str]:
    """The lines of a source that are no comment, no docstring and not blank."""
    lines = text.splitlines()
    if suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                assert node.end_lineno is not None
                for number in range(node.lineno - 1, node.end_lineno):
                    lines[number] = ""
    comment = "#" if suffix == ".py" else "//"
    return [line for line in lines if line.strip() and not line.lstrip().startswith(comment)]


@cache
def commit() -> str | None:
    """The commit of this checkout, with a + where files other than results differ from it; None
    outside of one, or without git."""
    if shutil.which("git") is None:
        return None
    status = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    found = []
    for words in (("rev-parse", "HEAD"), status):
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            return None
        found.append(done.stdout.strip())
    return found[0] + ("+" if found[1] else "")
