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
from rich.console import Console

from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.stock import probe
from mlx_flash_runtime.stock.probe import Answer
from mlx_flash_runtime.tools.cli import doctor as command
from mlx_flash_runtime.tools.doctor import Examination, Finding
from mlx_flash_runtime.tools.doctor.attention import fused_kernels


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
        if name not in ("device", "products"):  # free memory and speed are measured anew
            assert line.endswith(finding["value"])
        assert finding["advice"] in text.stdout
    assert (found["products"]["status"] == "warning") == bool(found["products"]["advice"])


@cpu_only
def test_on_the_cpu_mlx_answers_no_as_the_table_says() -> None:
    answers = list(probe.answers(current_device()))
    assert {answer.phase for answer in answers} == {
        "prefill",
        "decode",
    }  # the CPU does not tell training apart
    assert len(answers) == 2 * len(probe.DTYPES) * len(probe.HEAD_DIMS)
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


def test_an_unknown_mlx_is_broken() -> None:
    done = doctor("--json", before="import mlx.core; mlx.core.__version__ = '0.99.0'")
    found = findings(done)["mlx"]
    assert (done.returncode, found["status"]) == (1, "broken")
    assert "0.99.0" in found["value"]
    assert "pip install 'mlx>=0.31,<0.33'" in found["advice"]


NO_MLX = "sys.modules['mlx.core'] = None"


def test_an_mlx_that_cannot_be_loaded_is_broken() -> None:
    done = doctor(before=NO_MLX)
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


ANSWERS = (
    Answer("prefill", "float16", 64, True, True),
    Answer("prefill", "float16", 96, True, False),
    Answer("decode", "float16", 64, False, False),
    Answer("decode", "float16", 96, False, True),
)


def test_answers_that_differ_from_the_table_are_named() -> None:
    device = Device("metal", (0, 32, 4), 2**35, "Darwin")
    found = fused_kernels(ANSWERS, device)
    assert (found.status, found.value.partition(": ")[2]) == (
        "warning",
        "prefill float16 96, decode float16 96",
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
    assert cells == [["prefill", "float16", "fused", "fused !"], ["decode", "float16", "-", "- !"]]
