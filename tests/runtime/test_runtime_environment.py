"""What the environment asks for, in real processes: a patched script, run as its user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_flash_runtime.stock.table import known_range

SCRIPT = """
import argparse
import mlx.core as mx
import mlx.nn as nn

mx.set_default_device(mx.cpu)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.MultiHeadAttention(16, 2) for _ in range(2)]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x, x, x)
        return x

mx.random.seed(0)
model = Model()
parser = argparse.ArgumentParser()
parser.add_argument("--disable-flash-attention", action="store_true")
parser.add_argument("--flash-block-size", metavar="N")
args = parser.parse_args()
try:
    from mlx_flash_runtime import enable_flash_attention
except ImportError:
    pass  # not installed: MLX's own attention runs
else:
    enable_flash_attention(not args.disable_flash_attention, args.flash_block_size)
out = model(mx.random.normal((1, 20, 16)))
print("sum", round(out.sum().item(), 3))
"""


# The line comes at the first call that a route of ours takes; this one is on every machine.
OURS = {"MLX_FLASH_ROUTE": "blockwise"}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def run(script: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *flags],
        env={**os.environ, **OURS, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


ON = f"flash attention: on (mlx {mx.__version__}, cpu; block size auto)\n"
REPORT = "flash attention: 2 attention layers, 2 calls: {} 2\n"


@pytest.fixture(scope="module")
def plain(script: Path) -> str:
    return run(script, MLX_FLASH_DISABLE="1").stdout


def test_enabled_says_so_once_and_computes_the_same(script: Path, plain: str) -> None:
    done = run(script)
    assert (done.returncode, done.stderr) == (0, ON)
    assert done.stdout == plain


def test_disable_variable_wins(script: Path, plain: str) -> None:
    done = run(script, MLX_FLASH_DISABLE="1", MLX_FLASH_REPORT="1")
    assert (done.returncode, done.stdout) == (0, plain)
    assert done.stderr == "flash attention: no attention calls (off)\n"


@pytest.mark.parametrize("word", ["", "0", "false", "No", "OFF"])
def test_words_for_off_switch_nothing_on(script: Path, tmp_path: Path, word: str) -> None:
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,  # where a report would be written
        env={**os.environ, **OURS, "MLX_FLASH_DISABLE": word, "MLX_FLASH_REPORT": word},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ON)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["1", "true", "Yes", "ON"])
def test_words_for_on(script: Path, word: str) -> None:
    done = run(script, MLX_FLASH_DISABLE=word, MLX_FLASH_REPORT=word)
    assert (done.returncode, done.stderr) == (0, "flash attention: no attention calls (off)\n")


def test_disable_flag(script: Path, plain: str) -> None:
    done = run(script, "--disable-flash-attention")
    assert (done.returncode, done.stdout, done.stderr) == (0, plain, "")


def test_route_and_report_on_stderr(script: Path, plain: str) -> None:
    done = run(script, MLX_FLASH_ROUTE="blockwise", MLX_FLASH_REPORT="1")
    assert done.stdout == plain
    assert done.stderr.startswith(ON + REPORT.format("blockwise"))


def test_report_as_json(script: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = run(
        script, "--flash-block-size", "64", MLX_FLASH_BLOCK_SIZE="8", MLX_FLASH_REPORT=str(path)
    )
    assert "block size 64" in done.stderr
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["enabled"] is True
    assert report["block_size"] == 64
    assert report["calls"] == 2
    assert [(layer["name"], layer["class"]) for layer in report["layers"]] == [
        ("layers.0", "MultiHeadAttention"),
        ("layers.1", "MultiHeadAttention"),
    ]


def test_report_to_nowhere_is_one_line(script: Path, tmp_path: Path, plain: str) -> None:
    done = run(script, MLX_FLASH_REPORT=str(tmp_path / "missing" / "report.json"))
    assert (done.returncode, done.stdout) == (0, plain)
    assert "the report was not written" in done.stderr
    assert "Traceback" not in done.stderr


def test_block_size_variable(script: Path) -> None:
    assert "block size 128" in run(script, MLX_FLASH_BLOCK_SIZE="128").stderr


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("MLX_FLASH_BLOCK_SIZE", "7", "7 is not a positive multiple of 8"),
        ("MLX_FLASH_BLOCK_SIZE", "many", "many is not a positive multiple of 8"),
        ("MLX_FLASH_DISABLE", "maybe", "maybe is neither on (1, true, yes) nor off (0, false, no)"),
        ("MLX_FLASH_BUILD", "2", "2 is neither on (1, true, yes) nor off (0, false, no)"),
        (
            "MLX_FLASH_ROUTE",
            "fast",
            "fast is not a route; the routes are cuda_kernel, lowered, metal_kernel, native, "
            "forced, cpu_kernel, query_blocks, blockwise, unfused, reference",
        ),
    ],
)
def test_bad_variable_is_one_line_and_status_2(
    script: Path, variable: str, value: str, message: str
) -> None:
    done = run(script, **{variable: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{variable}: {message}\n"


@pytest.mark.parametrize("text", ["7", "0", "-8", "many"])
def test_bad_flag_is_one_line_and_status_2(script: Path, text: str) -> None:
    done = run(script, f"--flash-block-size={text}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"--flash-block-size: {text} is not a positive multiple of 8\n"


def changed(script: Path, tmp_path: Path, first_lines: str) -> Path:
    path = tmp_path / "changed.py"
    path.write_text(first_lines + script.read_text(encoding="utf-8"), encoding="utf-8")
    return path


@pytest.mark.parametrize("version", ["0.30.6", "unknown"])
def test_unknown_mlx_warns_once_and_leaves_attention_alone(
    script: Path, tmp_path: Path, plain: str, version: str
) -> None:
    # The version string is all that the package has to go by, so changing it is what an unknown
    # MLX looks like.
    again = "import atexit\n@atexit.register\ndef last():\n    enable_flash_attention()\n"
    done = run(
        changed(script, tmp_path, f"import mlx.core\nmlx.core.__version__ = {version!r}\n" + again)
    )
    assert (done.returncode, done.stdout) == (0, plain)
    assert done.stderr == (
        f"flash attention: off: mlx {version} is not a version this package knows "
        f"({known_range()}, and newer ones that tell what they fuse)\n"
    )


@pytest.mark.parametrize("version", ["0.32.99", "0.33.0", "1.0.0.dev20270101+abc"])
def test_a_newer_mlx_is_asked_and_said_so_once(
    script: Path, tmp_path: Path, plain: str, version: str
) -> None:
    newer = f"import mlx.core\nmlx.core.__version__ = {version!r}\n"
    twice = "import atexit\natexit.register(lambda: enable_flash_attention())\n"
    done = run(changed(script, tmp_path, newer + twice))
    assert (done.returncode, done.stdout) == (0, plain)
    first, second = done.stderr.splitlines()
    assert first == (
        f"flash attention: mlx {version} is none of the versions this package was checked with "
        f"({known_range()}): it is asked what it fuses"
    )
    assert second.startswith(f"flash attention: on (mlx {version}")


def test_a_newer_mlx_whose_graphs_tell_nothing_is_left_alone(
    script: Path, tmp_path: Path, plain: str
) -> None:
    mute = "mlx.core.export_to_dot = lambda file, *arrays: None\n"
    newer = "import mlx.core\nmlx.core.__version__ = '0.99.0'\n"
    done = run(changed(script, tmp_path, newer + mute))
    assert (done.returncode, done.stdout) == (0, plain)
    assert done.stderr.startswith("flash attention: off: mlx 0.99.0 is not a version")


def test_a_known_development_version_is_on(script: Path, tmp_path: Path) -> None:
    done = run(
        changed(
            script, tmp_path, "import mlx.core\nmlx.core.__version__ = '0.32.4.dev20260101+abc'\n"
        ),
        MLX_FLASH_ROUTE="blockwise",
    )
    assert "flash attention: on (mlx 0.32.4.dev20260101+abc" in done.stderr


def test_without_the_runtime_the_script_runs(script: Path, tmp_path: Path, plain: str) -> None:
    done = run(changed(script, tmp_path, "import sys\nsys.modules['mlx_flash_runtime'] = None\n"))
    assert (done.returncode, done.stdout, done.stderr) == (0, plain, "")


def test_an_application_s_logging_decides(script: Path, tmp_path: Path) -> None:
    configured = (
        "import logging, sys\n"
        "logging.basicConfig(level={}, stream=sys.stdout, format='%(name)s %(message)s')\n"
    )
    done = run(changed(script, tmp_path, configured.format("'INFO'")))
    assert done.stderr == ""
    assert done.stdout.startswith("mlx_flash_runtime flash attention: on")
    done = run(changed(script, tmp_path, configured.format("'WARNING'")))
    assert (done.stderr, done.stdout[:3]) == ("", "sum")


def test_a_forked_child_leaves_the_report_to_its_parent(script: Path, tmp_path: Path) -> None:
    forking = changed(script, tmp_path, "")
    # Some releases of MLX hang in a child's own exit, so the child does of it only what is tested
    # here.
    fork = (
        "import atexit, os\npid = os.fork()\n"
        "if pid == 0:\n    atexit._run_exitfuncs()\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    forking.write_text(forking.read_text(encoding="utf-8") + fork, encoding="utf-8")
    done = run(forking, MLX_FLASH_REPORT="1")
    assert done.returncode == 0
    assert done.stderr.count("2 attention layers") == 1


def test_import_patches_nothing_and_needs_mlx_alone(tmp_path: Path) -> None:
    path = tmp_path / "imports.py"
    path.write_text(
        "import sys\nimport mlx.core as mx\n"
        "before, stock = set(sys.modules), mx.fast.scaled_dot_product_attention\n"
        "import mlx_flash_runtime\nassert mx.fast.scaled_dot_product_attention is stock\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - sys.stdlib_module_names), 'mlx.nn' in sys.modules)\n",
        encoding="utf-8",
    )
    assert run(path).stdout == "['mlx_flash_runtime'] False\n"
