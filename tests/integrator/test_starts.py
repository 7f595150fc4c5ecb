"""Ways in which scripts start their work: each is found, and runs as it did, the patch on before a
model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from outcomes import changed, run

from forked import Ran, Runner

STAND_INS = {
    "mlx_lm.py": "def load(model=None):\n    print('loads')\n    return model\n",
    "mlx_flash_runtime.py": """\
def enable_flash_attention(enabled=True, block_size=None):
    print("enabled", enabled, block_size)
""",
}
HEAD = "import sys\n\nfrom mlx_lm import load\n\n\ndef main():\n    load()\n\n\n"
STARTS = {
    "try": ("flat-script", "try:\n    main()\nexcept KeyboardInterrupt:\n    pass\n"),
    "try_sys_exit": (
        "flat-script",
        "try:\n    sys.exit(main())\nexcept KeyboardInterrupt:\n    pass\n",
    ),
    "raise": ("flat-script", "raise SystemExit(main())\n"),
    "if_arguments": ("flat-script", "if sys.argv[1:]:\n    main()\n"),
    "nested": (
        "flat-script",
        "if sys.argv[1:]:\n    try:\n        main()\n    finally:\n        print('done')\n",
    ),
    "code": ("flat-script", "code = main()\nif code:\n    sys.exit(code)\n"),
    "and": ("flat-script", "__name__ == '__main__' and main()\n"),
    "guard_and": ("main-guard", "if __name__ == '__main__' and sys.argv[1:]:\n    main()\n"),
    "guard_in": ("main-guard", "if __name__ in ('__main__', 'builtins'):\n    main()\n"),
    "guard_in_try": (
        "main-guard",
        "try:\n    if __name__ == '__main__':\n        main()\n"
        "except KeyboardInterrupt:\n    pass\n",
    ),
    "guard_else": (
        "main-guard",
        "if __name__ != '__main__':\n    print('imported')\nelse:\n    main()\n",
    ),
    "guards_and": (
        "main-guard",
        "if __name__ == '__main__':\n    main()\n"
        "if __name__ == '__main__' and sys.argv[1:]:\n    main()\n",
    ),
    "guards_with_conditions": (
        "flat-script",
        "if __name__ == '__main__' and not sys.argv:\n    pass\n"
        "if __name__ == '__main__' and sys.argv:\n    main()\n",
    ),
    "branches": (
        "flat-script",
        "if __name__ == '__main__' and not sys.argv[1:]:\n    pass\n"
        "elif __name__ == '__main__':\n    main()\n",
    ),
}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    (tmp_path / "packages").mkdir()
    for module, text in STAND_INS.items():
        (tmp_path / "packages" / module).write_text(text)
    return tmp_path / "packages"


@pytest.mark.parametrize("name", STARTS)
def test_a_start_is_found(name: str, tmp_path: Path, packages: Path, runner: Runner) -> None:
    codemod, start = STARTS[name]
    before, after = ran(HEAD + start, codemod, tmp_path / "repo", packages, runner, ["x"])
    assert before.code == after.code == 0, after.stderr
    assert before.stdout.startswith("loads\n")
    assert after.stdout == "enabled True None\n" + before.stdout


def ran(
    text: str, codemod: str, repo: Path, packages: Path, runner: Runner, argv: Sequence[str] = ()
) -> tuple[Ran, Ran]:
    """How a script runs before and after the codemod that is expected to change it."""
    outcome = run(repo, {"script.py": text})["script.py"]
    assert outcome.codemod == codemod, outcome.reason
    before = runner.run(repo / "script.py", list(argv), packages)
    (repo / "script.py").write_bytes(outcome.after)
    return before, runner.run(repo / "script.py", list(argv), packages)


LIBRARY = """\
import logging

from mlx_lm import load


def answer(model):
    return load(model)


def name():
    return "library"


NAME = name()
logging.getLogger(name())
try:
    import numpy
except ImportError:
    numpy = None
if numpy is None:
    DTYPES = dict(float=float)
"""


def test_what_prepares_a_module_starts_nothing(tmp_path: Path) -> None:
    outcome = run(tmp_path, {"library.py": LIBRARY})["library.py"]
    assert outcome.reason == "a library module: nothing in it starts a program"


CLI = """\
import argparse

from mlx_lm import load


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    args = parser.parse_args()
    load(args.model)
"""
STARTER = """\
import logging

from tool.cli import main

log = logging.getLogger("tool")

if __name__ == "__main__":
    level = logging.INFO
    log.setLevel(level)
    main()
"""


def test_a_starter_leaves_the_runtime_to_what_it_starts(tmp_path: Path) -> None:
    files = {"tool/__init__.py": "", "tool/cli.py": CLI, "tool/__main__.py": STARTER}
    outcomes = run(tmp_path, files)
    assert changed(outcomes) == {"tool/cli.py": "argparse-script"}
    assert (
        outcomes["tool/__main__.py"].reason == "only starts tool/cli.py, which turns the runtime on"
    )
    working = STARTER.replace("import logging\n", "import logging\n\nfrom mlx_lm import load\n", 1)
    files["tool/__main__.py"] = working.replace("    level =", '    load("warm")\n    level =')
    assert changed(run(tmp_path / "working", files))["tool/__main__.py"] == "main-guard"


@pytest.mark.parametrize(
    "own",
    [
        "def enable_flash_attention(model):\n    return model\n",
        "class enable_flash_attention:\n    pass\n",
        "from helpers import enable_flash_attention\n",
        "def answer(enable_flash_attention):\n    return enable_flash_attention\n",
    ],
)
def test_a_name_of_its_own_is_not_taken(own: str, tmp_path: Path) -> None:
    files = {
        "script.py": own + CLI + "\n\nmain()\n",
        "helpers.py": "def enable_flash_attention(model):\n    return 1\n",
    }
    outcome = run(tmp_path, files)["script.py"]
    assert outcome.reason == "uses the name enable_flash_attention for something of its own"


def test_an_argument_or_method_of_that_name_is_no_use(tmp_path: Path) -> None:
    text = CLI.replace("load(args.model)", "load(args.model, enable_flash_attention=1)")
    text += (
        "\n\nclass Model:\n    def enable_flash_attention(self):\n        return 1\n\n\nmain()\n"
    )
    assert changed(run(tmp_path, {"script.py": text})) == {"script.py": "argparse-script"}


CONTINUED = """\
import argparse

from mlx_lm import load

p = argparse.ArgumentParser()
p.add_argument("--model", default="tiny")
args = p.parse_args(); \\
model = load(args.model)
print([model], vars(args))
"""


def test_a_line_that_is_continued_behind_a_semicolon(
    tmp_path: Path, packages: Path, runner: Runner
) -> None:
    before, after = ran(CONTINUED, "flat-script", tmp_path / "repo", packages, runner)
    assert (before.code, after.code) == (0, 0), after.stderr
    assert after.stdout == "enabled True None\n" + before.stdout
