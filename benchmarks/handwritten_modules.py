"""Modules of public models twice: as they are, and as flash-integrate rewrites them."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

from handwritten_cases import Case

from flash_codemods.handwritten.handwritten_attention import rewrites_of
from flash_integrate.attention.rewrites import applied
from flash_integrate.python.source import Source


def modules_of(case: Case, checkouts: Path, scratch: Path) -> tuple[Any, Any]:
    """The module as it is, and as it is rewritten, each in packages of its own."""
    root = checkouts / case.repo / case.root
    if not root.is_dir():
        raise FileNotFoundError(root)
    copy = scratch / case.repo / case.root
    if not copy.exists():
        rewrite_into(root, copy)
    register_packages(checkouts / case.repo)
    original = load("before_" + label(case), root, case.module)
    rewritten = load("after_" + label(case), copy, case.module)
    return original, rewritten


def register_packages(repo: Path) -> None:
    """Lets modules import others of their repo by its own name, again without the `__init__` of
    the packages on the way."""
    for folder in (item.parent for item in repo.glob("*/__init__.py")):
        for path in (folder, *(item for item in folder.glob("**/") if item.name != "__pycache__")):
            name = ".".join(path.relative_to(repo).parts)
            if name not in sys.modules and len(path.relative_to(repo).parts) <= 3:
                package = types.ModuleType(name)
                package.__path__ = [str(path)]
                sys.modules[name] = package


def label(case: Case) -> str:
    return f"{case.repo}_{case.root}".replace("-", "_").replace("/", "_")


def rewrite_into(root: Path, copy: Path) -> None:
    """Copies the Python files of a folder, with attention by hand rewritten where that is
    proved."""
    for path in root.rglob("*.py"):
        data = path.read_bytes()
        if b"softmax" in data:
            rewrites, _ = rewrites_of(Source(path, data))
            data = applied(data, [rewrite for rewrite in rewrites if rewrite.proved])
        target = copy / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def load(top: str, root: Path, module: str) -> Any:
    """A module below a folder, without running the `__init__` of the packages around it: those
    import whatever the repo needs for other models."""
    parts = module.split(".")
    folder = root
    for index in range(len(parts)):
        name = ".".join([top, *parts[:index]])
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = [str(folder)]
            sys.modules[name] = package
        folder = folder / parts[index]
    return importlib.import_module(f"{top}.{module}")
