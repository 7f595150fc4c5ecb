"""Models are followed to where they run: what only changes or names one runs no attention."""

from __future__ import annotations

from pathlib import Path

import pytest
from bots import OWN_MODEL
from outcomes import run

from flash_integrate.planning.plan import Status

NO_ATTENTION = "no attention is reached from it"


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
