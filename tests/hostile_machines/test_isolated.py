"""`python -I -m mlx_flash_runtime script.py` finds its modules where `python -I script.py` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from patched_program import environment

SINCE_3_11 = pytest.mark.skipif(sys.version_info < (3, 11), reason="newer than this Python")
SHOW = "import sys\nprint(sys.path)\n"


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ((), {}),
        (("-I",), {}),
        pytest.param(("-P",), {}, marks=SINCE_3_11),
        pytest.param((), {"PYTHONSAFEPATH": "1"}, marks=SINCE_3_11),
    ],
    ids=["", "-I", "-P", "PYTHONSAFEPATH"],
)
@pytest.mark.parametrize(
    "target", [("scripts/script.py",), ("-m", "script")], ids=["script", "module"]
)
def test_the_path_is_python_s_own(
    target: tuple[str, ...], options: tuple[str, ...], variables: dict[str, str], tmp_path: Path
) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "script.py").write_text(SHOW, encoding="utf-8")

    def path(*more: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, *options, *more, *target],
            env=environment(**variables),
            cwd=tmp_path if target[0] != "-m" else scripts,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout

    plain, ours = path(), path("-m", "mlx_flash_runtime")
    found = plain[0] == 0
    assert found == (target[0] != "-m" or not (options or variables))
    assert (ours == plain) if found else (ours == (2, ""))
    assert (str(scripts) in ours[1]) == (not options and not variables)
