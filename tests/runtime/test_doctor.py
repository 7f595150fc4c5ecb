"""`mlx-flash doctor`: as a process of its own, on machines that lack something,
told of kernels not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from backends import cpu_only
from click.testing import CliRunner
from rich.console import Console

from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.stock.table import Table, family_of
from mlx_flash_runtime.tools.cli import doctor as command
from mlx_flash_runtime.tools.cli.group import mlx_flash as mlx_flash_group
from mlx_flash_runtime.tools.doctor import Examination, Finding, kernels, record
from mlx_flash_runtime.tools.doctor.attention import fused_kernels
from mlx_flash_runtime.tools.doctor.kernels import Answer

# No test asks how fast products are.
FEW_PRODUCTS = (
    "from mlx_flash_runtime.tools.doctor import attention; "
    "attention._PRODUCT_SIZE, attention._PRODUCT_SECONDS = 64, 1e-3"
)


def mlx_flash(
    *arguments: str, before: str = "pass", **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command, after a statement that takes something from its Python."""
    run = f"sys.argv = ['mlx-flash', *{arguments!r}]\n"
    run += "from mlx_flash_runtime.tools.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {before}\n{run}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def doctor(
    *options: str, before: str = "pass", **environment: str
) -> subprocess.CompletedProcess[str]:
    before = f"{before}; {FEW_PRODUCTS}"
    return mlx_flash("doctor", *options, before=before, **environment)


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_this_machine_is_not_broken_and_text_says_what_json_says() -> None:
    text, data = doctor(), doctor("--json")
    assert (text.returncode, text.stderr) == (0, "")
    assert (data.returncode, data.stderr) == (0, "")
    assert json.loads(data.stdout)["broken"] is False
    assert "\x1b" not in text.stdout
    found = findings(data)
    assert mx.__version__ in found["mlx"]["value"]
    assert found["device"]["value"].startswith(current_device().backend)
    assert found["attention"]["value"].startswith("computes what it should on ")
    assert found["mlx-lm"]["value"].endswith("with all 5 places that are patched")
    for name, finding in found.items():
        line = next(line for line in text.stdout.splitlines() if f"  {name}  " in line)
        assert line.startswith(finding["status"])
        if name not in ("device", "matmul"):  # free memory and speed are measured anew
            assert line.endswith(finding["value"])
        assert finding["advice"] in text.stdout
    assert (found["matmul"]["status"] == "warning") == bool(found["matmul"]["advice"])


@cpu_only
def test_on_the_cpu_mlx_answers_no_as_the_table_says() -> None:
    answers = list(kernels.answers(current_device()))
    assert {answer.phase for answer in answers} == set(kernels.PHASES)
    kinds = len(kernels.PHASES) * len(kernels.MASKS) * len(kernels.DTYPES)
    assert len(answers) == kinds * len(kernels.HEAD_DIMS)
    assert not any(answer.fused or answer.expected for answer in answers)


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path) -> None:
    done = doctor("--json", PATH=str(tmp_path))
    found = findings(done)["compiler"]
    assert (done.returncode, found["status"]) == (0, "missing")
    assert "g++" in found["value"]
    assert found["advice"]


@pytest.mark.parametrize("distribution", ["mlx-lm", "matplotlib"])
def test_without_an_extra_it_says_what_to_install(distribution: str) -> None:
    hide = (
        "import importlib.metadata as m; real = m.version; "
        f"m.version = lambda name: real('not-there' if name == {distribution!r} else name)"
    )
    done = doctor("--json", before=hide)
    found = findings(done)[distribution]
    assert (done.returncode, found["status"], found["value"]) == (0, "missing", "not installed")
    assert "pip install 'mlx-flash-runtime[" in found["advice"]


def test_places_that_another_mlx_lm_has_not_are_named() -> None:
    done = doctor("--json", before="import mlx_lm.models.base as b; del b.create_causal_mask")
    found = findings(done)["mlx-lm"]
    assert (done.returncode, found["status"]) == (0, "warning")
    assert "without mlx_lm.models.base.create_causal_mask" in found["value"]


def test_switched_off_is_a_warning() -> None:
    found = findings(doctor("--json", MLX_FLASH_DISABLE="1"))["environment"]
    assert found["status"] == "warning"
    assert "MLX_FLASH_DISABLE=1" in found["value"]


def test_a_value_that_no_script_runs_with_is_broken() -> None:
    done = doctor("--json", MLX_FLASH_ROUTE="x")
    found = findings(done)["environment"]
    assert (done.returncode, found["status"]) == (1, "broken")
    assert "MLX_FLASH_ROUTE=x" in found["value"]
    assert found["advice"].startswith("MLX_FLASH_ROUTE: x is not a route; ")


def test_a_name_that_nothing_reads_is_a_warning() -> None:
    found = findings(doctor("--json", MLX_FLASH_FOO="1"))["environment"]
    assert found["status"] == "warning"
    assert "MLX_FLASH_FOO=1" in found["value"]
    assert found["advice"].startswith(
        "MLX_FLASH_FOO is read by nothing; the variables are MLX_FLASH_DISABLE, "
    )


def test_an_mlx_that_is_too_old_is_broken() -> None:
    done = doctor("--json", before="import mlx.core; mlx.core.__version__ = '0.30.6'")
    found = findings(done)["mlx"]
    assert (done.returncode, found["status"]) == (1, "broken")
    assert "0.30.6" in found["value"]
    assert "pip install 'mlx>=0.31.0'" in found["advice"]


def test_an_mlx_that_is_newer_is_asked() -> None:
    newer = "import mlx.core; mlx.core.__version__ = '0.99.0'"
    found = findings(doctor("--json", before=newer))["mlx"]
    assert found["status"] == "warning"
    assert found["value"].startswith("0.99.0, newer than what was checked (0.31.0 to ")
    mute = f"{newer}; mlx.core.export_to_dot = lambda file, *arrays: None"
    done = doctor("--json", before=mute)
    assert (done.returncode, findings(done)["mlx"]["status"]) == (1, "broken")
    assert findings(done)["fused kernels"]["status"] == "missing"


NO_MLX = "sys.modules['mlx.core'] = None"


def test_an_mlx_that_cannot_be_loaded_is_broken() -> None:
    done = mlx_flash("doctor", before=NO_MLX)
    assert (done.returncode, done.stderr) == (1, "")
    assert "broken" in done.stdout
    assert "MLX cannot be loaded: " in done.stdout
    assert "pip install" in done.stdout


def test_without_mlx_other_commands_and_scripts_say_why() -> None:
    done = mlx_flash("bench", "grid", before=NO_MLX)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: MLX cannot be loaded: ")
    assert len(done.stderr.splitlines()) == 1
    code = (
        f"import sys; {NO_MLX}\n"
        "try: from mlx_flash_runtime import enable_flash_attention\n"
        "except ImportError as error: print('pip install' in str(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_what_mlx_fuses_here_is_written_as_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_HEAD_DIMS", ((64, 64), (192, 128)))
    monkeypatch.setattr(record, "_MANY", (9, 128))
    path = tmp_path / "fused.json"
    result = CliRunner().invoke(mlx_flash_group, ["doctor", "--record", str(path)])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{path}: what MLX fuses on ")
    table = Table.of(json.loads(path.read_text(encoding="utf-8")))
    assert table.families == (family_of(current_device()),)
    assert bool(table.fused) == (current_device().backend != "cpu")
    missing = ["doctor", "--record", str(tmp_path / "there" / "fused.json")]
    assert "there is no folder" in CliRunner().invoke(mlx_flash_group, missing).stderr


ANSWERS = (
    Answer("prefill", "causal", "float16", 64, True, True),
    Answer("prefill", "causal", "float16", 96, True, False),
    Answer("decode", "none", "float16", 64, False, False),
    Answer("decode", "none", "float16", 96, False, True),
)


def test_answers_that_differ_from_the_table_are_named() -> None:
    device = Device("metal", (0, 32, 4), 2**35, "Darwin")
    found = fused_kernels(ANSWERS, device)
    assert (found.status, found.value.partition(": ")[2]) == (
        "warning",
        "prefill causal float16 96, decode none float16 96",
    )
    agreeing = tuple(answer for answer in ANSWERS if answer.fused == answer.expected)
    assert fused_kernels(agreeing, device).value.startswith("1 of 2 kinds of call")


def test_the_table_of_kernels_marks_what_differs() -> None:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(command._kernels(Examination((Finding("mlx", "ok", ""),), ANSWERS)))
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in capture.get().splitlines()
        if line[:1] == "│"
    ]
    assert cells == [
        ["prefill", "causal", "float16", "yes", "yes !"],
        ["decode", "none", "float16", "-", "- !"],
    ]
