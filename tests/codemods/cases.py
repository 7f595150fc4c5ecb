"""The cases under `fixtures/codemods`: NAME.before.py becomes NAME.after.py, NAME.noop.py stays as
it is. In a
folder `refused` another codemod edits the file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from flash_integrate.planning.plan import Decision, plan
from flash_integrate.project.workspace import FileFacts, Workspace

CASES = Path(__file__).parents[2] / "fixtures" / "codemods"
# Attention by hand has tests of its own.
_OTHERS = [path for path in CASES.glob("*/*.py") if path.parent.name != "handwritten-attention"]
BEFORE = sorted(path for path in _OTHERS if path.name.endswith(".before.py"))
REFUSED = sorted(CASES.glob("*/refused/*.before.py"))
NOOP = sorted(path for path in _OTHERS if path.name.endswith(".noop.py"))


def name_of(path: Path) -> str:
    return path.relative_to(CASES).as_posix().removesuffix(".py")


def facts_of(path: Path, data: bytes) -> FileFacts:
    """The facts of a file that stands alone."""
    name = PurePosixPath(path.name.partition(".")[0] + ".py")
    return Workspace.alone(name, data, path.parent).facts(name)


def decide(path: Path) -> Decision:
    return plan(facts_of(path, path.read_bytes()))
