"""Which scripts run MLX attention, and which only look like it."""

from __future__ import annotations

from pathlib import Path

import pytest
from bots import OWN_MODEL
from outcomes import changed, run

from flash_integrate.attention.handwritten import handwritten_attention
from flash_integrate.attention.libraries import holds_models
from flash_integrate.planning.plan import Status
from flash_integrate.python.module import Module
from flash_integrate.python.source import Source

NO_ATTENTION = "no attention is reached from it"
TORCH = """\
# as fast as mlx
import torch.nn.functional as F

print(F.scaled_dot_product_attention(q, k, v))
"""
PERCEPTRON = """\
import mlx.core as mx


def forward(x, w1, w2):
    hidden = mx.maximum(x @ w1, 0)
    return mx.softmax(hidden @ w2, axis=-1)


def gradient(x, y, p):
    return x.T @ (p - y)


print(forward(mx.zeros((2, 2)), mx.zeros((2, 2)), mx.zeros((2, 2))))
"""


def test_packages_of_models() -> None:
    models = [
        *(
            "mlx_lm",
            "mlx_vlm",
            "mlx_whisper",
            "mlx_audio",
            "mlx_embeddings",
            "mlx_embedding_models",
            "mlx_omni_server",
        ),
        *(
            "lightning_whisper_mlx",
            "parakeet_mlx",
            "f5_tts_mlx",
            "chat_with_mlx",
            "mflux",
            "mlxim",
            "fastmlx",
        ),
    ]
    others = [
        "mlx",
        "mlx_data",
        "mlx_flash_runtime",
        "mlxtend",
        "mlx90614",
        "adafruit_mlx90640",
        "dhtmlx",
        "torch",
    ]
    assert all(holds_models(f"{name}.utils") for name in models)
    assert not any(map(holds_models, others))


@pytest.mark.parametrize(
    "script",
    [
        "from mlxtend.frequent_patterns import apriori\n\napriori([])\n",
        "from mlx90614 import MLX90614\n\nMLX90614()\n",
        TORCH,
        PERCEPTRON,
        "from mlx_lm.tokenizer_utils import load\n\nload('model')\n",
        "import mlx_lm.tokenizer_utils\n\nmlx_lm.tokenizer_utils.load('model')\n",
        "from mlx_lm import tokenizer_utils\n\ntokenizer_utils.load('model')\n",
        "from mlx_lm.sample_utils import make_sampler\n\nmake_sampler(temp=0.0)\n",
        "from mlx_lm.tuner import TrainingArgs\n\nprint(TrainingArgs())\n",
        "from moshi_mlx.models.tts import DEFAULT_DSM_TTS_REPO\n\nprint(DEFAULT_DSM_TTS_REPO)\n",
        "from mlx_lm.tuner.utils import build_schedule\n\nprint(build_schedule({})(0))\n",
        "from mlx_lm.models.base import create_attention_mask\n\ncreate_attention_mask(1)\n",
        "from mlx_lm.generate import GenerationResponse, wired_limit\n\nprint(wired_limit)\n",
        "from mlx_vlm.utils import load_processor, prepare_inputs\n\nload_processor('model')\n",
        "from mlx_lm.convert import main\n\nmain()\n",
    ],
)
def test_what_only_looks_like_it(tmp_path: Path, script: str) -> None:
    assert run(tmp_path, {"run.py": script})["run.py"].reason == NO_ATTENTION


def test_attention_of_pytorch_beside_mlx(tmp_path: Path) -> None:
    """A comparison imports both: only what stands in a file that imports MLX is MLX's."""
    attend = "\n\ndef attend(q):\n    return {}.scaled_dot_product_attention(q, q, q)\n"
    torch = "import torch.nn.functional as F\n" + attend.format("F")
    mlx = "from backend import mx\n" + attend.format("mx.fast")
    script = "import mlx.core as mx\nfrom {} import attend\n\nattend(mx.zeros((1, 1, 1, 8)))\n"
    files = {
        "with_torch.py": torch,
        "with_mlx.py": mlx,
        "backend.py": "import mlx.core as mx\n",
        "one.py": script.format("with_torch"),
        "two.py": script.format("with_mlx"),
    }
    assert changed(run(tmp_path, files)) == {"two.py": "flat-script"}


def test_a_package_whose_name_does_not_say_mlx(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        {"draw.py": "from mflux import Flux1\n\nFlux1.from_name('schnell').generate_image()\n"},
    )
    assert str(outcome["draw.py"].evidence).startswith("draw.py:3 -> mflux.Flux1.from_name -> ")


def test_compiled_code_of_a_project_is_no_package_of_models(tmp_path: Path) -> None:
    files = {
        "mlx_own/__init__.py": "import mlx.core as mx\nfrom mlx_own import _ext\n",
        "run.py": "from mlx_own import _ext\n\nprint(_ext.run_forward(1))\n",
    }
    assert run(tmp_path, files)["run.py"].reason == NO_ATTENTION


def test_a_project_that_is_named_like_a_package_of_models_need_have_none(tmp_path: Path) -> None:
    files = {
        "src/mlx_own/__init__.py": "",
        "src/mlx_own/forces.py": "import mlx.core as mx\n\n\ndef total(x):\n    return x.sum()\n",
        "run.py": (
            "import importlib\nimport sys\n\nfrom mlx_own.forces import total\n\n"
            "print(importlib.import_module(sys.argv[1]), total)\n"
        ),
    }
    assert run(tmp_path, files)["run.py"].reason == NO_ATTENTION


@pytest.mark.parametrize(
    "table",
    [
        '[tool.hatch.build.targets.wheel.sources]\n"pylib" = "tool"\n',
        '[tool.hatch.build.sources]\n"pylib" = "tool"\n',
        '[tool.setuptools]\npackage-dir = {"tool" = "pylib", "" = "src"}\n',
    ],
)
def test_a_package_that_is_installed_under_another_name(table: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(table)
    files = {
        "pylib/__init__.py": "",
        "pylib/cli/server.py": "from tool.model import load\n\nprint(load('in')(1))\n",
        "pylib/model.py": OWN_MODEL,
        "demo/run.py": "from tool.model import load\n\nprint(load('in')(1))\n",
        "demo/other.py": "from tools.model import load\n\nprint(load('in')(1))\n",
    }
    outcomes = run(tmp_path, files)
    found = {name for name, outcome in outcomes.items() if outcome.status is Status.CHANGED}
    assert found == {"pylib/cli/server.py", "demo/run.py"}
    assert "pylib/model.py:7" in str(outcomes["demo/run.py"].evidence)


@pytest.mark.parametrize(
    ("manifest", "package"),
    [
        ("python/pyproject.toml", "python/mlx_own"),
        ("packages/own/pyproject.toml", "packages/own/src/mlx_own"),
        ("python/setup.py", "python/mlx_own"),
    ],
)
def test_a_package_that_the_tree_installs_from_another_folder(
    manifest: str, package: str, tmp_path: Path
) -> None:
    """It is read, though its name says that it is a package of models: what it gives to the second
    script has no attention."""
    (tmp_path / manifest).parent.mkdir(parents=True)
    (tmp_path / manifest).write_text("# builds mlx_own\n")
    files = {
        f"{package}/__init__.py": "",
        f"{package}/model.py": OWN_MODEL,
        f"{package}/events.py": "class Event:\n    def __call__(self):\n        return 1\n",
        "bench/run.py": "from mlx_own.model import load\n\nprint(load('in')(1))\n",
        "bench/events.py": "from mlx_own.events import Event\n\nprint(Event()())\n",
    }
    outcomes = run(tmp_path, files)
    assert f"{package}/model.py:7" in str(outcomes["bench/run.py"].evidence)
    assert outcomes["bench/events.py"].reason == NO_ATTENTION


@pytest.mark.parametrize(
    "imports",
    [
        "try:\n    from mlx_lm import {}\nexcept ImportError:\n    from other_backend import {}\n",
        "if sys.argv:\n    from mlx_lm import {}\nelse:\n    from torch_backend import {}\n",
        "def other():\n    from other_backend import {}\n\n\nfrom mlx_lm import {}\n",
    ],
)
def test_a_name_that_is_imported_from_one_of_two_packages(imports: str, tmp_path: Path) -> None:
    names = imports.replace("{}", "generate, load")
    script = f"import sys\n\n{names}\nprint(generate(*load('m'), prompt='hi'))\n"
    assert "mlx_lm.generate" in str(run(tmp_path, {"run.py": script})["run.py"].evidence)


def test_all_names_of_a_package_of_the_project_that_has_no_models(tmp_path: Path) -> None:
    files = {
        "mlx_own/__init__.py": "",
        "mlx_own/tools.py": "import mlx.core as mx\n\n\ndef scale(x):\n    return mx.sqrt(x)\n",
        "run.py": (
            "import mlx.core as mx\nfrom mlx_own.tools import *\n\nprint(scale(mx.ones(3)))\n"
        ),
    }
    assert run(tmp_path, files)["run.py"].reason == NO_ATTENTION
    files["mlx_own/tools.py"] = OWN_MODEL.replace("def load", "def scale")
    assert run(tmp_path / "with", files)["run.py"].status is Status.CHANGED


@pytest.mark.parametrize("package", ["mlx_lm", "parakeet_mlx"])
def test_a_module_that_is_named_after_the_package_that_it_wraps(
    package: str, tmp_path: Path
) -> None:
    module = f"from {package} import generate\n\n\ndef answer(text):\n    return generate(text)\n"
    files = {
        "engines/__init__.py": "",
        f"engines/{package}.py": module,
        "run.py": f"from engines.{package} import answer\n\nprint(answer('hello'))\n",
    }
    evidence = str(run(tmp_path, files)["run.py"].evidence)
    assert evidence.startswith(f"run.py:3 -> engines/{package}.py:5 -> {package}.generate -> ")


def test_a_module_that_is_named_after_its_own_package(tmp_path: Path) -> None:
    files = {
        "own/__init__.py": "from own.model import load\n",
        "own/model.py": OWN_MODEL,
        "own/own.py": "from own import load\n\n\ndef answer():\n    return load('in')(1)\n",
        "run.py": "from own.own import answer\n\nprint(answer())\n",
    }
    assert "own/own.py:5 -> own/model.py:7" in str(run(tmp_path, files)["run.py"].evidence)


def test_two_packages_of_one_name_that_the_tree_installs(tmp_path: Path) -> None:
    """Which of them is installed where a script runs is not known; beside one it is."""
    files = {"bench/run.py": "from mlx_own.model import load\n\nprint(load('in')(1))\n"}
    for folder in ("v1", "v2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pyproject.toml").write_text("# builds mlx_own\n")
        files |= {f"{folder}/mlx_own/__init__.py": "", f"{folder}/mlx_own/model.py": OWN_MODEL}
        files[f"{folder}/bench/run.py"] = files["bench/run.py"]
    outcomes = run(tmp_path, files)
    assert "which were not read" in str(outcomes["bench/run.py"].evidence)
    assert "v2/mlx_own/model.py:7" in str(outcomes["v2/bench/run.py"].evidence)


def test_its_own_modules_are_no_package_of_models_by_their_text(tmp_path: Path) -> None:
    """Nothing here has MLX: what may have attention is asked of bytes, before a file is read."""
    files = {
        "mlx_own/__init__.py": "",
        "mlx_own/forces.py": "import numpy as np\n\n\ndef softmax(x):\n    return np.exp(x)\n",
        "mlx_own/plans.py": (
            "from mlx_own.forces import softmax\n\n\ndef plan(q):\n    return softmax(q @ q) @ q\n"
        ),
        "plugins.py": (
            "import importlib\nimport sys\n\n"
            "print(importlib.import_module('mlx_own.plans'))\n"
            "print(importlib.import_module(sys.argv[1]))\n"
        ),
    }
    assert run(tmp_path, files)["plugins.py"].reason == NO_ATTENTION
    files["plugins.py"] = files["plugins.py"].replace("mlx_own", "mlx_others")
    assert run(tmp_path, files)["plugins.py"].status is Status.CHANGED


def test_a_variable_is_not_the_module_of_its_name(tmp_path: Path) -> None:
    package = "import mlx.core as mx\n\n\ndef size(model):\n    return len(model)\n"
    files = {
        "pkg/__init__.py": package,
        "pkg/model.py": OWN_MODEL,
        "run.py": "from pkg import size\n\nprint(size([1]))\n",
    }
    assert run(tmp_path, files)["run.py"].reason == NO_ATTENTION


BY_HAND = [
    "mx.softmax(q @ k.T, axis=-1) @ v",
    "(q @ k.T).softmax(-1) @ v",
    "mx.einsum('hqk,hkd->hqd', mx.softmax(mx.einsum('hqd,hkd->hqk', q, k) * scale), v)",
    "v @ mx.softmax(k @ q.T, axis=-1).T",
    "w = mx.softmax(mx.matmul(q, k))\n    return mx.matmul(v, w.swapaxes(1, 2))",
    "mx.matmul(dropout(mx.softmax(mx.matmul(q, k), axis=-1).astype(v.dtype)), v)",
    (
        "s = q @ k.T\n    s = s + mask\n    weights = mx.softmax(s)\n"
        "    weights = weights * keep\n    x = weights @ v"
    ),
    (
        "if causal:\n        s = mx.where(mask, q @ k.T, -1)\n        w = softmax(s)\n"
        "        return w @ v"
    ),
]
OTHERS = [
    "mx.softmax(mx.maximum(x @ w1, 0) @ w2)",
    "p = mx.softmax(x @ w)\n    return x.T @ (p - y)",
    "p = mx.softmax(x @ w)\n    p = p / len(x)\n    return x.T @ p",
    "p = mx.softmax(x @ w)\n    return mx.matmul(x.T, p)",
    "mx.softmax(x) @ v",
    "def inner(x):\n        return mx.softmax(x @ w)\n    return inner(x) @ v",
]


def softmaxes(body: str) -> list[int]:
    """The lines of the softmaxes of attention in a function with this body."""
    text = f"def attend(q, k, v):\n    {body}\n"
    module = Module(Source(Path("attend.py"), text.encode()))
    return [call.lineno for call in handwritten_attention(module, module.tree)]


@pytest.mark.parametrize("body", BY_HAND)
def test_attention_written_by_hand(body: str) -> None:
    softmax = next(
        number for number, line in enumerate(body.splitlines(), start=2) if "softmax" in line
    )
    assert softmaxes(body) == [softmax]


@pytest.mark.parametrize("body", OTHERS)
def test_a_softmax_that_is_no_attention(body: str) -> None:
    assert softmaxes(body) == []


@pytest.mark.parametrize(
    "start", ["\ufeff", "\f", "\ufeff\f", "\n \f", "# returns alone\n"], ids=ascii
)
def test_an_import_is_seen_wherever_a_line_may_start(start: str, tmp_path: Path) -> None:
    """The script names no MLX itself: what it imports in its first line does."""
    script = f"{start}import helper\n\nhelper.load('tiny')\n"
    if "returns" in start:
        script = script.replace("\n", "\r")
    outcomes = run(tmp_path, {"script.py": script, "helper.py": "from mlx_lm import load\n"})
    assert outcomes["script.py"].status is Status.CHANGED


@pytest.mark.parametrize("start", ["\ufeff", "\f"], ids=ascii)
def test_a_word_on_being_generated_too(start: str, tmp_path: Path) -> None:
    script = f"{start}# @generated\nfrom mlx_lm import load\n\nload('tiny')\n"
    assert run(tmp_path, {"script.py": script})["script.py"].reason == "generated code"
