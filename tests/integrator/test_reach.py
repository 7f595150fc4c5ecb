"""Which scripts run MLX attention, and which only look like it."""

from __future__ import annotations

from pathlib import Path

import pytest
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


@pytest.mark.parametrize(
    ("package", "names", "first"),
    [
        ("mlx_lm.tuner", ["utils.build_schedule", "utils.load_adapters", "trainer.train"], 2),
        ("mlx_lm", ["load", "models.cache.make_prompt_cache", "stream_generate"], 2),
        ("mlx_lm", ["tokenizer_utils.load", "utils.load_model", "sample_utils.make_sampler"], 1),
        ("mflux", ["ModelConfig.dev", "utils.exceptions.StopError", "Flux1.from_name"], 2),
        ("moshi_mlx.models", ["LmConfig.from_dict", "Lm", "LmGen"], 2),
        ("unread_mlx", ["helper", "TOKENS", "Model"], 2),
        ("unread_mlx", ["load_config", "something"], 1),
    ],
)
def test_evidence_starts_where_a_model_runs(
    tmp_path: Path, package: str, names: list[str], first: int
) -> None:
    """Not at what stands before it: what loads the model, a schedule, a tokenizer, a cache."""
    lines = [f"import {package}", "", *(f"print({package}.{name})" for name in names)]
    evidence = run(tmp_path, {"run.py": "\n".join(lines) + "\n"})["run.py"].evidence
    assert str(evidence).startswith(f"run.py:{3 + first} -> {package}.{names[first]} -> ")


LOADED = "from mlx_lm import load\n\nmodel, tokenizer = load('tiny')\n"
LOSS = "\n\ndef loss(model, x):\n    return model(x).sum()\n\n\n"


@pytest.mark.parametrize(
    ("rest", "shown"),
    [
        ("print(model(x))\n", "4 -> the model of mlx_lm.load"),
        ("model.eval()\nmodel.generate(x)\n", "5 -> the model of mlx_lm.load"),
        (LOSS + "step = nn.value_and_grad(model, loss)\n", "7 -> the model of mlx_lm.load"),
        ("import mlx.nn as nn\nnn.value_and_grad(model, f)\n", "5 -> the model of mlx_lm.load"),
        ("\n\ndef ask(net):\n    net(1)\n\n\nask(model)\n", "7 -> the model of mlx_lm.load"),
        ("llm = model\nllm(x)\n", "5 -> the model of mlx_lm.load"),
        ("from mlx_lm import generate\ngenerate(model, tokenizer)\n", "5 -> mlx_lm.generate"),
        ("Chat(model).start()\n", "3 -> mlx_lm.load"),
        ("models = {'a': model}\n", "3 -> mlx_lm.load"),
        ("print(model.args)\nprint(model(x))\n", "5 -> the model of mlx_lm.load"),
        ("print(model.model.layers[0](x))\n", "4 -> the model of mlx_lm.load"),
        ("print(model.language_model(x))\n", "3 -> mlx_lm.load"),
        ("for layer in model.layers:\n    x = layer(x)\n", "3 -> mlx_lm.load"),
        ("", "3 -> mlx_lm.load"),
    ],
)
def test_a_loaded_model_is_followed_to_where_it_runs(rest: str, shown: str, tmp_path: Path) -> None:
    evidence = run(tmp_path, {"run.py": LOADED + rest})["run.py"].evidence
    assert str(evidence).startswith(f"run.py:{shown} -> ")


def test_a_model_is_followed_into_the_file_that_runs_it(tmp_path: Path) -> None:
    files = {
        "run.py": "from train import fit\n" + LOADED + "fit(1, net=model)\n",
        "train.py": "def fit(steps, net):\n    for _ in range(steps):\n        net(1)\n",
    }
    evidence = run(tmp_path, files)["run.py"].evidence
    assert str(evidence).startswith("run.py:5 -> train.py:3 -> the model of mlx_lm.load -> ")


@pytest.mark.parametrize(
    "rest",
    [
        "print(model)\n",
        "import mlx.nn as nn\nnn.quantize(model, bits=4)\nmodel.save_weights('q4')\n",
        "from mlx_lm.utils import save_model\nmodel.freeze()\nsave_model('out', model)\n",
        "\n\ndef export(net):\n    net.save_weights('out')\n\n\nexport(model)\n",
        "model.train()\nmodel.config = None\n",
        "print(model.args)\n",
        "layers = model.args.layers\nprint(layers)\n",
        "print(model.layers[0], len(model.model.layers), f'{model.layers}')\n",
        "print(model.args.get('layers') if model is not None else 0)\n",
    ],
)
def test_a_model_that_only_is_changed_and_saved_is_no_attention(rest: str, tmp_path: Path) -> None:
    assert run(tmp_path, {"run.py": LOADED + rest})["run.py"].reason == NO_ATTENTION


OWN_MODEL = """\
import mlx.core as mx
import mlx.nn as nn


class Model(nn.Module):
    def __call__(self, q):
        return mx.fast.scaled_dot_product_attention(q, q, q, scale=1.0)


def load(path):
    model = Model()
    model.load_weights(path)
    return model
"""


@pytest.mark.parametrize(
    ("script", "runs"),
    [
        ("from net import Model\n\nmodel = Model()\nmodel.save_weights('out')\n", False),
        ("from net import Model\n\nmodel = Model()\nmodel(1)\n", True),
        ("from net import load\n\nmodel = load('in')\nmodel.save_weights('out')\n", False),
        ("from net import load\n\nmodel = load('in')\nserve(model)\n", True),
    ],
)
def test_the_models_of_a_project_too(script: str, runs: bool, tmp_path: Path) -> None:
    evidence = run(tmp_path, {"net.py": OWN_MODEL, "run.py": script})["run.py"].evidence
    assert (evidence is not None) == runs


@pytest.mark.parametrize(
    "mention",
    [
        "def ask(model: Model) -> Model:\n    return model(1)\n",
        "MODEL: Model | None = None\n",
        "def is_ours(model):\n    return isinstance(model, Model)\n",
        "if Model is None:\n    raise SystemExit\n",
    ],
)
def test_a_type_is_the_last_evidence(mention: str, tmp_path: Path) -> None:
    files = {
        "net.py": OWN_MODEL,
        "maker.py": "from net import load\n\n\ndef made():\n    return load('in')\n",
        "run.py": f"from maker import made\nfrom net import Model\n\n\n{mention}\n\nmade()(1)\n",
        "typed.py": f"import mlx.core\nfrom net import Model\n\n\n{mention}\nprint(ask)\n",
    }
    outcomes = run(tmp_path, files)
    line = len(files["run.py"].splitlines())
    assert str(outcomes["run.py"].evidence).startswith(f"run.py:{line} -> maker.py:5 -> net.py:7")
    assert "net.py:7" in str(outcomes["typed.py"].evidence)


@pytest.mark.parametrize(
    "script",
    [
        "from mlx_lm.models import mamba\n\nmamba.MambaBlock._step = print\nprint(1)\n",
        "from mlx_lm.models import mamba\n\nmodel = mamba.Model(1)\nmodel(2)\n",
        "from mlx_lm import load\n\n_, tokenizer = load('tiny')\ntokenizer.encode('')\n",
        "from mlx_lm.models import llama\n\nllama.Attention.__call__ = print\nprint(1)\n",
    ],
)
def test_what_replaces_a_part_and_what_has_no_attention(script: str, tmp_path: Path) -> None:
    assert run(tmp_path, {"run.py": script})["run.py"].reason == NO_ATTENTION


LOOKS_AT_MODEL = "import inspect\n\nfrom {module} import {name}\n\n\n{rest}\n"


@pytest.mark.parametrize(
    ("rest", "runs"),
    [
        ("print(inspect.getsource({name}.__call__))", False),
        ("source = inspect.getsourcefile({name})\nprint(source)", False),
        ("print(inspect.signature({name}.__call__).parameters)", False),
        ("print({name}.__call__ is print)", False),
        ("print({name}.__call__ is print)\n{name}.__call__ = print", False),
        ("stock = {name}.__call__\nprint(stock(1, 2))", True),
        ("print(getattr({name}.__call__, '_is_patched', False))", False),
        ("print(inspect.run({name}))", True),
        ("print({name}.__call__(1, 2))", True),
    ],
)
def test_a_method_whose_source_is_read_does_not_run(rest: str, runs: bool, tmp_path: Path) -> None:
    files = {"net.py": OWN_MODEL}
    for script, module, name in [
        ("own.py", "net", "Model"),
        ("library.py", "mlx_lm.models.llama", "Attention"),
    ]:
        files[script] = LOOKS_AT_MODEL.format(module=module, name=name, rest=rest.format(name=name))
    outcomes = run(tmp_path, files)
    for script in ("own.py", "library.py"):
        assert (outcomes[script].evidence is not None) == runs, script


def test_what_every_module_has_is_none_of_its_models(tmp_path: Path) -> None:
    package = (
        "import importlib\n\n\ndef __getattr__(name):\n"
        "    return getattr(importlib.import_module(f'.{name}', __name__), name)\n"
    )
    where = (
        "import importlib\nimport sys\n\n\ndef home(name):\n"
        "    module = importlib.import_module(name)\n"
        "    return getattr(module, '__path__', None) or module.__file__\n\n\n"
        "print(home(sys.argv[1]))\n"
    )
    files = {
        "pkg/__init__.py": package,
        "pkg/model.py": OWN_MODEL,
        "version.py": "import mlx.core\nimport pkg\n\nprint(pkg.__version__)\n",
        "lazy.py": "import mlx.core\nimport pkg\n\npkg.model.Model()(1)\n",
        "where.py": "import mlx.core\n" + where,
        "plugin.py": "import mlx.core\n" + where.replace("module.__file__", "module.run()"),
    }
    outcomes = run(tmp_path, files)
    found = {name for name, outcome in outcomes.items() if outcome.status is Status.CHANGED}
    assert found == {"lazy.py", "plugin.py"}


def test_a_method_that_is_kept_is_the_last_evidence(tmp_path: Path) -> None:
    script = (
        "from mlx_vlm import generate, load\nfrom mlx_vlm.generate import BatchGenerator\n\n"
        "stock = BatchGenerator._next\nBatchGenerator._next = lambda self: stock(self)\n"
        "print(generate(*load('tiny'), 'hello'))\n"
    )
    evidence = run(tmp_path, {"run.py": script})["run.py"].evidence
    assert str(evidence).startswith("run.py:6 -> mlx_vlm.generate -> ")


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
