"""Scripts that measure MLX beside another framework: with the patch they measure something else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from flash_integrate.notes import Note
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Edit

_FRAMEWORKS = {"jax", "onnxruntime", "tensorflow", "torch"}
_MEASURES = re.compile(
    r"(^|[/_-])(bench\w*|compar\w*|perf\w*|speed\w*|latency|throughput|timings?|vs[_-])"
)


def remarks(facts: FileFacts, edits: Sequence[Edit]) -> Iterator[Note]:
    """That the MLX side of a comparison is no longer stock MLX."""
    if not _MEASURES.search(facts.name.as_posix()):
        return
    frameworks = sorted(_imported_by(facts))
    if frameworks:
        reason = (
            f"seems to measure MLX beside {frameworks[0]}: MLX's numbers are now those of flash "
            "attention; with MLX_FLASH_DISABLE=1 they are those of MLX's own"
        )
        yield Note(reason)


def _imported_by(facts: FileFacts) -> set[str]:
    """The other frameworks that a file imports, itself or through a file of the project that it
    imports: further away one may be there to convert weights, or for another task."""
    project = facts.workspace.project
    own = project.scans[facts.name].imports
    files = {facts.name}.union(*(project.resolve(item, facts.name) for item in own))
    found = [item for path in files for item in project.scans[path].imports if not item.dots]
    return _FRAMEWORKS.intersection(item.module.partition(".")[0] for item in found)
