"""docs/performance.md and the tables in README.md are what benchmarks/results says."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import mlx.core as mx
import pytest
import yaml
from backends import cpu_only

from mlx_flash_runtime.tools.bench.definitions import CHAOTIC
from mlx_flash_runtime.tools.cli.group import mlx_flash

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("performance_page")


def test_the_pages_are_what_the_results_say(page: ModuleType) -> None:
    for path, text in page.pages(page.RESULTS).items():
        assert path.read_text(encoding="utf-8") == text, (
            "run: python benchmarks/performance_page.py"
        )


def test_nothing_measured_is_said_with_the_commands(page: ModuleType, tmp_path: Path) -> None:
    text, _ = page.pages(tmp_path).values()
    assert "| LoRA 15-35 % faster | not measured | not measured | not measured |" in text
    assert "There is no row yet for M1, M1 Pro, " in text
    assert "make measure" in text
    assert "mlx-flash bench grid --preset claims --dtype float32,bfloat16\n" in text
    assert "not measured yet on: CPU, NVIDIA H200, Mac (Metal)." in text


def test_another_number_is_another_page(page: ModuleType, tmp_path: Path) -> None:
    result = json.loads((page.RESULTS / "grid_cpu.json").read_text(encoding="utf-8"))
    row = result["summary"][0]
    row |= {"mean_over_plain": 7.77, "peak_tokens_per_s": 440_358}
    with_the_code_of_now(page, result, "grid_cpu")
    (tmp_path / "grid_cpu.json").write_text(json.dumps(result), encoding="utf-8")
    text, _ = page.pages(tmp_path).values()
    assert f"| {row['dtype']} | 7.77 |" in text
    assert f"| CPU | {row['dtype']} | 7.77 |" in text
    assert f"{row['dtype']} 7.77×: yes" in text
    assert f"{row['dtype']} 440,358: no" in text


def with_the_code_of_now(page: ModuleType, result: dict[str, Any], name: str) -> None:
    """Lets a result say that it was measured with the code that there is."""
    machine = result["machine"]
    machine |= importlib.import_module("depends").provenance(name, machine["backend"])


def test_a_figure_whose_code_has_changed_is_marked(page: ModuleType, tmp_path: Path) -> None:
    result = json.loads((page.RESULTS / "workflow_lora_cpu.json").read_text(encoding="utf-8"))
    path = tmp_path / "workflow_lora_cpu.json"
    with_the_code_of_now(page, result, path.stem)
    path.write_text(json.dumps(result), encoding="utf-8")
    for text in page.pages(tmp_path).values():
        assert "| CPU | lora |" in text
        assert "†" not in text
    commit = result["machine"]["commit"]
    assert commit is None or f"Commit {commit[:9]}" in page.pages(tmp_path)[page.PAGE]
    # Another kernel, and another machine's: the first is what this figure depends on.
    code = result["machine"]["code"]
    kernels = "runtime/mlx_flash_runtime/kernels"
    assert f"{kernels}/cpu" in code
    assert f"{kernels}/cuda" not in code
    code[f"{kernels}/cpu"] = "another"
    path.write_text(json.dumps(result), encoding="utf-8")
    for text in page.pages(tmp_path).values():
        assert "| CPU † | lora |" in text
        assert "† measured with other code than there is now" in text
    text = page.pages(tmp_path)[page.PAGE]
    assert "| claim | CPU † | NVIDIA H200 | Mac (Metal) |" in text
    assert f"† Changed since: `{kernels}/cpu`." in text
    # A result of before they kept it.
    del result["machine"]["code"]
    path.write_text(json.dumps(result), encoding="utf-8")
    for text in page.pages(tmp_path).values():
        assert "| CPU † | lora |" in text
    assert "† Measured before results kept the code" in page.pages(tmp_path)[page.PAGE]


def test_every_result_says_what_it_depends_on_and_all_of_it_is_there(page: ModuleType) -> None:
    depends = importlib.import_module("depends")
    suite, measure = map(importlib.import_module, ("suite_commands", "measure"))
    names = [path.stem for path in page.RESULTS.glob("*.json")]
    names += [name for machine in suite.MACHINES for name in suite.commands(machine)]
    names += [*measure.STEPS]
    for name in names:
        for backend in ("cpu", "cuda", "metal"):
            sources = depends.sources(name, backend)
            assert sources, name
            assert [path for path in sources if not (ROOT / path).exists()] == []


def test_comments_and_docstrings_are_no_code(page: ModuleType) -> None:
    code_of = importlib.import_module("depends").code_of
    lines = ['"""What it is."""', "# Why.", "x = 1  # here", "", "def f():", '    """Says."""']
    assert code_of("\n".join(lines), ".py") == ["x = 1  # here", "def f():"]
    assert code_of("// Why.\n#include <a.h>\nint x;\n", ".cuh") == ["#include <a.h>", "int x;"]


def test_a_workflow_claim_says_where_it_holds(page: ModuleType, tmp_path: Path) -> None:
    result = json.loads((page.RESULTS / "workflow_lora_cpu.json").read_text(encoding="utf-8"))
    for row, gain in zip(result["rows"], (1.0, 1.1, 1.2), strict=True):
        row["over_stock"] = gain
    with_the_code_of_now(page, result, "workflow_lora_h200")
    (tmp_path / "workflow_lora_h200.json").write_text(json.dumps(result), encoding="utf-8")
    text, _ = page.pages(tmp_path).values()
    longest = result["rows"][-1]
    where = f"1.00× to 1.20×: at {longest['model']} {longest['length']:,}"
    assert f"| LoRA 15-35 % faster | not measured | {where} | not measured |" in text


def test_a_chat_of_one_length_is_shown_once(page: ModuleType, tmp_path: Path) -> None:
    result = json.loads((page.RESULTS / "workflow_chat_cpu.json").read_text(encoding="utf-8"))
    with_the_code_of_now(page, result, "workflow_chat_cpu")
    for count in (len(result["rows"]), 1):
        result["rows"] = result["rows"][:count]
        (tmp_path / "workflow_chat_cpu.json").write_text(json.dumps(result), encoding="utf-8")
        text = page.pages(tmp_path)[page.PAGE].partition("## The claims")[0]
        assert text.count("| CPU | chat | ") == min(2, count)


def test_a_claim_of_chats_names_the_reply_and_rounds_that_differ(
    page: ModuleType, tmp_path: Path
) -> None:
    result = json.loads((page.RESULTS / "workflow_chat_cpu.json").read_text(encoding="utf-8"))
    result["rows"] = result["rows"][:3]
    steady = (0.99, 0.5, 0.99)
    for row, gain, stability in zip(result["rows"], (1.0, 1.3, 1.2), steady, strict=True):
        row |= {"over_stock": gain, "stock_stability": 0.99, "ours_stability": stability}
    with_the_code_of_now(page, result, "workflow_chat_cpu")
    (tmp_path / "workflow_chat_cpu.json").write_text(json.dumps(result), encoding="utf-8")
    text, _ = page.pages(tmp_path).values()
    where = "llama-tiny 128 + 1,024, llama-tiny 128 + 256 ~"
    assert f"| chat 15-35 % | 1.00× to 1.30× ~: at {where} | not measured |" in text
    assert text.count("~ unsteady: ") == 2  # below the claims, and below the machine's tables


def test_quartiles_stand_with_their_median_and_mark_the_ratios(
    page: ModuleType, tmp_path: Path
) -> None:
    result = json.loads((page.RESULTS / "pytorch_h200.json").read_text(encoding="utf-8"))
    times = {"stock_ms": 2.0, "stock_low_ms": 1.9, "stock_high_ms": 2.3}
    times |= {"ours_ms": 1.0, "ours_low_ms": 1.0, "ours_high_ms": 1.02}
    result["rows"] = [result["rows"][0] | times | {"pytorch_ms": 3.0, "over_pytorch": 3.0}]
    (tmp_path / "pytorch_h200.json").write_text(json.dumps(result), encoding="utf-8")
    text, _ = page.pages(tmp_path).values()
    assert (
        "| stock, ms | ours, ms | × stock | PyTorch, ms | PyTorch's backend | × PyTorch |" in text
    )
    assert "| 2 ±10% | 1 ±1% | 2.00 ~ | 3 | " in text
    assert " | 3.00 | 2.11.0 |" in text
    assert "- × NAME: the milliseconds of NAME over ours; below 1, ours took longer." in text
    assert "- ~ unsteady: " in text


def test_a_step_that_needs_less_than_the_most_is_told(page: ModuleType, tmp_path: Path) -> None:
    result = json.loads((page.RESULTS / "plan_h200.json").read_text(encoding="utf-8"))
    for ratio, said in ((1.05, False), (2.0, True)):
        result["rows"][0]["ratio"] = ratio
        result["rows"] = result["rows"][:1]
        (tmp_path / "plan_h200.json").write_text(json.dumps(result), encoding="utf-8")
        text, _ = page.pages(tmp_path).values()
        assert ("llama: 2.00 to 2.00 times as much was predicted" in text) == said


def test_routes_have_a_section_on_their_machine(page: ModuleType, tmp_path: Path) -> None:
    times = {f"{name}_{key}ms": 2.0 for name in ("plain", "ours") for key in ("", "low_", "high_")}
    row = {
        "case": "window 1024 of 16384, D 128",
        "route": "lowered",
        **times,
        "stock_ms": None,
        "stock_failure": "out of memory",
    }
    row |= {
        "plain_failure": None,
        "ours_failure": None,
        "over_plain": 1.0,
        "over_stock": None,
        "memory_ratio": None,
    }
    row |= {
        "plain_peak_mib": 8.0,
        "stock_peak_mib": None,
        "ours_peak_mib": 4.0,
        "error": 1.0,
        "wrong": True,
    }
    machine = json.loads((page.RESULTS / "grid_cpu.json").read_text(encoding="utf-8"))["machine"]
    machine |= {"device": "NVIDIA H200", "backend": "cuda"}
    result = {
        "title": "Routes",
        "command": "c",
        "machine": machine,
        "definitions": ["words"],
        "rows": [row],
    }
    with_the_code_of_now(page, result, "routes_h200")
    (tmp_path / "routes_h200.json").write_text(json.dumps(result), encoding="utf-8")
    text, _ = page.pages(tmp_path).values()
    section = text.partition("## NVIDIA H200")[2]
    cells = "lowered | 2 ±0% | out of memory | 2 ±0% | 1.00 | - | 8 | - | 4 | - | WRONG: 1.0e+00 |"
    assert f"| window 1024 of 16384, D 128 | {cells}" in section
    assert "benchmarks/routes.py h200" not in section
    assert "| NVIDIA H200 | window 1024 of 16384, D 128 | lowered | - | 2 | - | - / 4 |" in text


def test_a_measured_mac_has_its_own_section_and_column(page: ModuleType, tmp_path: Path) -> None:
    done = script("measure.py", "--quick", "--into", str(tmp_path))
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.iterdir()
    assert f"wrote {path}" in done.stdout
    measured = json.loads(path.read_text(encoding="utf-8"))
    assert measured["unfinished"] == {}
    assert [result["rows"] != [] for result in measured["results"].values()] == [True, True]
    assert measured["machine"]["mlx"] == mx.__version__
    assert mx.__version__ in measured["fused"]["releases"]
    as_on_a_mac = json.loads(path.read_text(encoding="utf-8"))
    for one in (as_on_a_mac, *as_on_a_mac["results"].values()):
        one["machine"] |= {"backend": "metal", "device": "Apple M3 Max", "system": "macOS"}
    for name, result in as_on_a_mac["results"].items():
        assert result["machine"]["code"]
        with_the_code_of_now(page, result, name)
    text, _ = page.pages(tmp_path).values()
    assert "Apple M3 Max" not in text  # this machine is no Mac
    path.write_text(json.dumps(as_on_a_mac), encoding="utf-8")
    text, _ = page.pages(tmp_path).values()
    assert "| claim | CPU | NVIDIA H200 | Apple M3 Max |" in text
    section = text.partition("## Apple M3 Max")[2]
    assert "length 100, D 64, training | " in section
    assert "M3, M3 Pro, M3 Ultra, M4" in section.partition("## Macs without a row")[2]
    assert "| Apple M3 Max | float32 |" in text


@pytest.mark.parametrize("rounding", [0.4, 0.01])
def test_a_difference_as_large_as_the_logits_is_explained(
    page: ModuleType, tmp_path: Path, rounding: float
) -> None:
    result = json.loads(
        (page.RESULTS / "workflow_chat_gemma_h200.json").read_text(encoding="utf-8")
    )
    result["definitions"].remove(CHAOTIC)  # as that run's own rows needed it
    for row in result["rows"]:
        row["rounding"] = rounding
    (tmp_path / "workflow_chat_gemma_h200.json").write_text(json.dumps(result), encoding="utf-8")
    text, _ = page.pages(tmp_path).values()
    assert (CHAOTIC in text) == (rounding == 0.4)


def test_the_ratios_of_the_cpu_come_with_the_speed_of_its_products(
    page: ModuleType, tmp_path: Path
) -> None:
    for name in ("grid_cpu.json", "cpu_kernel.json"):
        text, _ = page.pages(tmp_path).values()
        assert "a plain BLAS" not in text
        result = json.loads((page.RESULTS / name).read_text(encoding="utf-8"))
        for row in result["rows"]:
            # 1 MFLOP in 0.1 ms, which is 10 GFLOP/s.
            row |= {
                "batch": 1,
                "heads": 1,
                "length": 500,
                "head_dim": 1,
                "plain_ms": 0.1,
                "numpy_gflops": 250.0,
            }
        (tmp_path / name).write_text(json.dumps(result), encoding="utf-8")
    text, _ = page.pages(tmp_path).values()
    assert "it makes 10 GFLOP/s in float32; NumPy's products make 250 on that machine." in text


def test_every_command_of_the_suite_is_one(page: ModuleType) -> None:
    suite = importlib.import_module("suite_commands")
    for machine in suite.MACHINES:
        for command in suite.commands(machine).values():
            for part in command.split(" && "):
                program, *words = shlex.split(part)
                if program == "python":
                    assert (ROOT / words[0]).is_file()
                    continue
                assert program == "mlx-flash"
                is_command(words)


def is_command(words: list[str]) -> None:
    """Raises for a command of mlx-flash that is none, and for what is no option of it."""
    at: click.Command = mlx_flash
    while isinstance(at, click.Group):
        found = at.get_command(click.Context(at), words.pop(0))
        assert found is not None
        at = found
    at.make_context(at.name, words)


def test_every_command_of_the_workflows_and_of_a_mac_is_one(page: ModuleType) -> None:
    measure = importlib.import_module("measure")
    commands = [command for command, _ in (*measure.STEPS.values(), *measure.QUICK_STEPS.values())]
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            commands += [step["run"] for step in job["steps"] if "run" in step]
    checked = 0
    for command in commands:
        program, *words = shlex.split(command.partition(" | ")[0])
        if program.removeprefix(".venv/bin/") == "mlx-flash":
            is_command(words)
            checked += 1
    assert checked >= 7


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "fixtures"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


SCRIPTS = [
    path.name
    for path in (ROOT / "benchmarks").glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_of_a_script_is_help_alone(name: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "benchmarks" / "results").iterdir()}
    done = script(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {name} ")
    assert {
        path: path.stat().st_mtime_ns for path in (ROOT / "benchmarks" / "results").iterdir()
    } == before


def test_the_parts_of_a_policy_add_up(page: ModuleType) -> None:
    policy = importlib.import_module("policy")
    series = {"stock": [0.07] + [0.01] * 511, "ours": [0.01] * 512}
    first, start, later = policy.rows_of("calls of one shape", series)
    assert (first["part"], first["over_stock"]) == ("1", 7.0)
    assert (start["part"], start["stock_total_s"], start["ours_total_s"]) == (
        "1 to 128",
        1.34,
        1.28,
    )
    assert (later["part"], later["over_stock"]) == ("129 to 512", 1.0)
    # A shorter run has no steady state, and says how far it went.
    short = policy.rows_of("calls of one shape", {name: of[:4] for name, of in series.items()})
    assert [row["part"] for row in short] == ["1", "1 to 4"]


def test_the_plot_of_a_policy_is_on_the_page(page: ModuleType, tmp_path: Path) -> None:
    policy, store = map(importlib.import_module, ("policy", "store"))
    series = {"stock": [0.07, 0.01, 0.01], "ours": [0.01] * 3}
    result = store.Result(tmp_path / "policy_cpu.json", title="T", command="c", definitions=())
    for row in policy.rows_of("chat", series):
        result.add(row)
    picture = "![T](../benchmarks/results/policy_cpu.svg)"
    assert picture not in page.pages(tmp_path)[page.PAGE]
    policy.plot({"chat": series}, tmp_path / "policy_cpu.svg")
    assert (tmp_path / "policy_cpu.svg").read_text(encoding="utf-8").count("<path") > 4
    assert picture in page.pages(tmp_path)[page.PAGE]


@cpu_only
def test_stock_is_not_measured_against_itself() -> None:
    done = script("cuda_kernel.py", "h200")
    assert (done.returncode, done.stdout) == (2, "")
    assert "it measures a kernel for CUDA, and the device is cpu" in done.stderr


@pytest.mark.parametrize(("name", "machine"), [("suite.py", "h200"), ("routes.py", "cpu")])
def test_a_name_that_no_measurement_has_is_told_with_those_there_are(
    name: str, machine: str
) -> None:
    done = script(name, machine, "--only", "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"has 'nothing' in its name: \w", done.stderr)


def test_a_result_says_what_was_beside_it_and_whether_it_is_whole(
    page: ModuleType, tmp_path: Path
) -> None:
    result = json.loads((page.RESULTS / "policy_h200.json").read_text(encoding="utf-8"))
    plain = {key: value for key, value in result["machine"].items() if key != "beside"}
    for facts, said in (({}, False), ({"beside": 3, "complete": False}, True)):
        result["machine"] = plain | facts
        (tmp_path / "policy_h200.json").write_text(json.dumps(result), encoding="utf-8")
        text, _ = page.pages(tmp_path).values()
        assert ("Beside 3 more" in text) == said
        assert ("Stopped before all of its rows were measured." in text) == said
