"""Names that lead through packages, and what of a file they are asked about."""

from __future__ import annotations

from pathlib import Path

import pytest
from outcomes import changed, run

from flash_integrate.planning.plan import NO_ATTENTION

ATTENDS = (
    "import mlx.core as mx\n\n\n"
    "class Model:\n"
    "    def __call__(self, q):\n"
    "        return mx.fast.scaled_dot_product_attention(q, q, q, scale=1.0)\n"
)
FUSED = "mx.fast.scaled_dot_product_attention"
SCRIPT = "import net\n\nprint(net.llama.Model())\n"
THERE = f"run.py:3 -> net/llama.py:6 -> {FUSED}"


@pytest.mark.parametrize(
    ("package", "script"),
    [
        ({"net/__init__.py": "from . import llama\n"}, SCRIPT),
        ({"net/__init__.py": "from net import llama\n"}, SCRIPT),
        ({"net/__init__.py": ""}, "import net.llama\n\nprint(net.llama.Model())\n"),
        ({"net/__init__.py": ""}, "import net.llama as m\n\nprint(m.Model())\n"),
        ({}, "from net import llama\n\nprint(llama.Model())\n"),  # a folder without __init__
        (
            {"net/__init__.py": "from .llama import Model as Llama\n"},
            "import net\n\nprint(net.Llama())\n",
        ),
        (
            {"net/__init__.py": "from .all import *\n", "net/all.py": "from .llama import Model\n"},
            "from net import Model\n\nprint(Model())\n",
        ),
        (
            {
                "net/__init__.py": 'LAZY = {"Llama": ("net.llama", "Model")}\n\n\n'
                "def __getattr__(name):\n    return load(*LAZY[name])\n"
            },
            "import net\n\nprint(net.Llama())\n",
        ),
        (
            {
                "net/__init__.py": 'LAZY = {"Model": ".llama"}\n\n\n'
                "def __getattr__(name):\n    return load(LAZY[name], name)\n"
            },
            "from net import Model\n\nprint(Model())\n",
        ),
        (
            {
                "net/__init__.py": "def __getattr__(name):\n"
                "    from .llama import Model\n\n    return Model\n"
            },
            "from net import Model\n\nprint(Model())\n",
        ),
        (
            {"net/__init__.py": '__all__ = ["llama"]\n'},
            "from net import *\n\nprint(llama.Model())\n",
        ),
        (
            {
                "net/__init__.py": "from . import llama\n\n\n"
                "def __getattr__(name):\n    return getattr(llama, name)\n"
            },
            "from net import Model\n\nprint(Model())\n",
        ),
    ],
    ids=[
        "from_dot",
        "from_own_package",
        "import_of_a_module",
        "module_as",
        "no_init",
        "reexported_as",
        "star",
        "lazy_pairs",
        "lazy_modules",
        "lazy_import",
        "star_of_listed_modules",
        "passed_on",
    ],
)
def test_a_name_is_followed_through_a_package(
    package: dict[str, str], script: str, tmp_path: Path
) -> None:
    outcome = run(tmp_path, {**package, "net/llama.py": ATTENDS, "run.py": script})["run.py"]
    assert str(outcome.evidence) == THERE


def test_a_package_that_takes_names_in_a_circle_ends(tmp_path: Path) -> None:
    files = {
        "net/__init__.py": "from .other import *\n",
        "net/other.py": "from . import *\nimport mlx.core as mx\n",
        "run.py": "import mlx.core as mx\nimport net\n\nprint(net.Model(mx))\n",
    }
    assert run(tmp_path, files)["run.py"].reason == NO_ATTENTION


@pytest.mark.parametrize(
    ("imported", "used"),
    [
        ("from mlx.core.fast import scaled_dot_product_attention as sdpa", "sdpa"),
        ("import mlx.core as mx\n\nsdpa = mx.fast.scaled_dot_product_attention", "sdpa"),
        ("import mlx.core.fast as f", "f.scaled_dot_product_attention"),
        ("from backend import mx", "mx.fast.scaled_dot_product_attention"),
        ("from mlx.nn import *", "MultiHeadAttention"),
    ],
)
def test_attention_under_another_name(imported: str, used: str, tmp_path: Path) -> None:
    script = f"{imported}\n\nprint({used}(1, 2))\n"
    files = {"run.py": script, "backend.py": "import mlx.core as mx\n"}
    assert changed(run(tmp_path, files)) == {"run.py": "flat-script"}


LOADER = """\
from pathlib import Path

from mlx_lm import load


class Loader:
    def __init__(self, path):
        self.model = load(path)

    @staticmethod
    def is_local(path):
        return Path(path).exists()

    @classmethod
    def open(cls, path):
        return cls(path) if cls.is_local(path) else None

    @classmethod
    def either(cls, path):
        return cls.is_local(path) or cls.is_local(path + "/")
"""


@pytest.mark.parametrize(
    ("call", "reaches"),
    [("is_local", False), ("either", False), ("open", True), ("inherited", True)],
)
def test_a_class_is_judged_by_the_method_that_is_called(
    call: str, reaches: bool, tmp_path: Path
) -> None:
    script = f"from loader import Loader\n\nprint(Loader.{call}('mlx'))\n"
    outcome = run(tmp_path, {"loader.py": LOADER, "run.py": script})["run.py"]
    assert (outcome.evidence is not None) == reaches
    assert reaches or outcome.reason == NO_ATTENTION


CHILD = """\
from loader import Loader


class Named(Loader):
    name = "named"


class Child({bases}):
    {body}
"""


@pytest.mark.parametrize(
    ("bases", "body", "call", "reaches"),
    [
        ("Loader", "pass", "is_local", False),
        ("Named", "pass", "is_local", False),
        ("Loader", "pass", "either", True),
        ("Loader", "is_local = Loader.open", "is_local", True),
        ("Named, Loader", "pass", "is_local", True),
        ("elsewhere()", "model = Loader", "is_local", True),
    ],
)
def test_a_static_method_that_a_class_inherits(
    bases: str, body: str, call: str, reaches: bool, tmp_path: Path
) -> None:
    """A method that is given the class may use all of it, and of several bases the class as a whole
    is judged."""
    child = CHILD.format(bases=bases, body=body)
    script = f"from child import Child\n\nprint(Child.{call}('mlx'))\n"
    outcome = run(tmp_path, {"loader.py": LOADER, "child.py": child, "run.py": script})["run.py"]
    assert (outcome.evidence is not None) == reaches
    assert reaches or outcome.reason == NO_ATTENTION


@pytest.mark.parametrize(
    "loads",
    [
        'import_module("net.llama")',
        'import_module(".llama", "net")',
        'import_module(MODELS["llama"])',
        "import_module(MODELS.get(name))",
        'import_module(f"net.{name}")',
        'import_module("net." + name)',
    ],
)
def test_a_module_that_is_loaded_by_its_name(loads: str, tmp_path: Path) -> None:
    package = (
        "from importlib import import_module\n\n"
        'MODELS = {"llama": "net.llama", "text": "net.text"}\n\n\n'
        f"def load(name):\n    return {loads}.Model\n"
    )
    files = {
        "net/__init__.py": package,
        "net/llama.py": ATTENDS,
        "net/text.py": "",
        "run.py": "import net\n\nprint(net.load('llama'))\n",
    }
    evidence = run(tmp_path, files)["run.py"].evidence
    assert str(evidence) == f"run.py:3 -> net/__init__.py:7 -> net/llama.py:6 -> {FUSED}"


@pytest.mark.parametrize(
    "loop",
    [
        '[import_module(name) for name in ("net.text", "net.llama")]',
        "[import_module(name) for name in MODELS]",
        "MODELS\nfor name in MODELS:\n    loaded = [import_module(name)]",
    ],
)
def test_modules_whose_names_a_loop_goes_over(loop: str, tmp_path: Path) -> None:
    script = (
        "from importlib import import_module\n\nimport mlx.core as mx\n\n"
        f'MODELS = ["net.text", "net.llama"]\nloaded = {loop}\nprint(loaded[0].Model(mx))\n'
    )
    files = {"net/__init__.py": "", "net/llama.py": ATTENDS, "net/text.py": "", "run.py": script}
    evidence = str(run(tmp_path / "attends", files)["run.py"].evidence)
    assert evidence.endswith(f"-> net/llama.py:6 -> {FUSED}")
    without = {**files, "run.py": script.replace('"net.llama"', '"net.other"')}
    assert run(tmp_path / "other", without)["run.py"].reason == NO_ATTENTION


def test_modules_whose_names_a_loop_takes_from_elsewhere_are_not_known(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom importlib import import_module\n\nimport mlx.core as mx\n\n"
        "for name in sys.argv[1:]:\n    print(import_module(name), mx)\n"
    )
    evidence = run(tmp_path, {"net.py": ATTENDS, "run.py": script})["run.py"].evidence
    assert str(evidence) == "run.py:7 -> a module that is chosen by name"


@pytest.mark.parametrize("given", ['"net"', 'package="net"'])
def test_a_module_that_is_loaded_from_a_package_by_its_name(given: str, tmp_path: Path) -> None:
    script = "from importlib import import_module\n\nimport mlx.core as mx\n\n"
    script += f'print(import_module(".llama", {given}).Model(mx))\n'
    files = {"net/__init__.py": "", "net/llama.py": ATTENDS, "run.py": script}
    evidence = run(tmp_path, files)["run.py"].evidence
    assert str(evidence) == f"run.py:5 -> net/llama.py:6 -> {FUSED}"


def test_a_module_with_an_unknown_name_may_attend_where_one_of_the_repo_does(
    tmp_path: Path,
) -> None:
    script = "import importlib\nimport sys\n\nprint(importlib.import_module(sys.argv[1]))  # mlx\n"
    files = {"run.py": script, "text.py": "import mlx.core as mx\n"}
    assert run(tmp_path / "without", files)["run.py"].reason == NO_ATTENTION
    evidence = run(tmp_path / "with", {**files, "net.py": ATTENDS})["run.py"].evidence
    assert str(evidence) == "run.py:4 -> a module that is chosen by name"
    # What is sure counts for more than what may be, however far it is.
    further = {**files, "net.py": ATTENDS, "run.py": f"import net\n{script}print(net.Model)\n"}
    evidence = run(tmp_path / "further", further)["run.py"].evidence
    assert str(evidence) == f"run.py:6 -> net.py:6 -> {FUSED}"


def test_pytorch_is_not_asked_for_its_attention_in_a_tree_with_some_mlx(tmp_path: Path) -> None:
    """A file of another framework does not become MLX's by importing one that has MLX."""
    torch = (
        "import torch\n\nfrom utils import flatten\n\n\n"
        "def attend(q):\n    return torch.softmax(q @ flatten(q).T, -1) @ q\n"
    )
    files = {
        "utils.py": "import mlx.core as mx\n\n\ndef flatten(x):\n    return mx.array(x)\n",
        "bert.py": torch,
        "run.py": "from bert import attend\n\nprint(attend([1]))\n",
    }
    assert run(tmp_path, files)["run.py"].reason == NO_ATTENTION
