"""A file with which mypy is content when it is strict stays one. (pyright was run over the same
files by hand: it needs Node.)"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from flash_integrate.cli.stdin import Piped, planned

CASES = Path(__file__).parents[2] / "fixtures" / "codemods"
# What the fixtures import is not looked into, but for what is called with the flags' values.
SETTINGS = """\
[mypy]
strict = true
ignore_missing_imports = true
follow_imports = skip
disallow_untyped_decorators = false
disallow_subclassing_any = false
disallow_any_generics = false
warn_return_any = false

[mypy-mlx_flash_runtime.*,click.*,typer.*]
follow_imports = silent
"""
WRONG_CALL = """\
from mlx_flash_runtime import enable_flash_attention

enable_flash_attention(True, [64])
"""


def files_with_errors(folder: Path) -> dict[str, str]:
    """The first error of each file in which mypy finds one."""
    (folder / "mypy.ini").write_text(SETTINGS)
    names = sorted(path.name for path in folder.glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir=cache", *names]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode in (0, 1), result.stderr
    found = re.findall(r"^([^:]+): ?\d+: error: (.*)$", result.stdout, re.MULTILINE)
    return dict(reversed(found))


def test_mypy_finds_nothing_new(tmp_path: Path) -> None:
    names = []
    for path in CASES.glob("*/*.before.py"):
        if path.parent.name == "handwritten-attention":
            continue
        # Most lack the types of results alone.
        before = re.sub(r"^( *def .*)\):$", r"\1) -> None:", path.read_text(), flags=re.MULTILINE)
        outcome = planned(Piped(before.encode()))
        if outcome.changes:
            names.append(f"{path.parent.name}_{path.name.split('.')[0]}".replace("-", "_"))
            (tmp_path / f"before_{names[-1]}.py").write_text(before)
            (tmp_path / f"after_{names[-1]}.py").write_bytes(outcome.result)
    (tmp_path / "wrong.py").write_text(WRONG_CALL)
    errors = files_with_errors(tmp_path)
    assert "enable_flash_attention" in errors["wrong.py"]  # the runtime's types are seen
    clean = [name for name in names if f"before_{name}.py" not in errors]
    kinds = {name.split("_")[0] for name in clean}
    assert kinds >= {"argparse", "click", "typer", "main", "flat"}
    found = {name: errors[f"after_{name}.py"] for name in clean if f"after_{name}.py" in errors}
    assert found == {}
