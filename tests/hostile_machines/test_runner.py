"""`python -m mlx_flash_runtime` runs a program as `python` does: compared with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from patched_program import environment

# What a program can find out about how it was started.
SELF = """\
import os, pickle, sys
import beside
class Thing:
    pass
def shown(name):
    value = globals().get(name, "absent")
    return type(value).__name__ if name == "__loader__" else repr(value)
for name in ("name", "file", "package", "spec", "cached", "doc", "loader"):
    print(name, shown(f"__{name}__"))
print(sys.argv, repr(sys.path[0]), sys.modules["__main__"].__dict__ is globals())
print(type(pickle.loads(pickle.dumps(Thing()))) is Thing)
print(sorted(set(globals()) - {"__annotations__"}))
"""
CHANGES_FOLDER = """\
import os
os.mkdir("elsewhere")
os.chdir("elsewhere")
here = os.path.dirname(os.path.abspath(__file__))
print(sorted(os.listdir(here)), open(__file__).read(7))
import beside
"""
SPAWNS = """\
import multiprocessing
class Work:
    def __init__(self, number):
        self.number = number
def double(work):
    return Work(2 * work.number)
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print([work.number for work in pool.map(double, [Work(1), Work(2)])])
"""
AT_EXIT = """\
import atexit, pickle, sys, threading
class Thing:
    pass
atexit.register(lambda: print(pickle.dumps(Thing())[:2], sys.modules["__main__"].Thing is Thing))
threading.Timer(0.2, lambda: print("late", Thing.__name__, sys.argv)).start()
"""
RAISES = """\
import beside
def deeper():
    beside.fail()
try:
    deeper()
except ValueError as error:
    raise KeyError("second") from error
"""
PROGRAMS = {
    "tells of itself": SELF,
    "changes folder": CHANGES_FOLDER,
    "spawns": SPAWNS,
    "at exit": AT_EXIT,
    "raises": RAISES,
    "raises with a note": "error = ValueError('é')\nerror.add_note('more')\nraise error\n"
    if sys.version_info >= (3, 11)
    else "raise ValueError('é')\n",
    "does not parse": "x = (\n",
    "another encoding": "# -*- coding: latin-1 -*-\nprint('\xe9' == chr(233))\n",
    "ends with a status": "raise SystemExit(7)\n",
    "ends with words": "raise SystemExit('enough')\n",
    "ends at once": "import os\nos._exit(9)\n",
    "is ended by a signal": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n",
    "a hook of its own": (
        "import sys\nsys.excepthook = lambda kind, error, trace: print(kind, trace.tb_lineno)\n"
        "1 / 0\n"
    ),
    "future": "from __future__ import annotations\ndef f(x: y): pass\nprint(f.__annotations__)\n",
    "no future": (
        "try:\n    def f(x: y): pass\n    print(f.__annotations__)\n"
        "except NameError as error:\n    print(error)\n"
    ),
}
BESIDE = "def fail():\n    raise ValueError('first')\n"


def outcome(folder: Path, arguments: list[str], given: str | None) -> tuple[int, str, str]:
    """Exit status, output and errors of Python with these arguments in `folder`."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(PYTHONDONTWRITEBYTECODE="1", PYTHONPATH=""),
        input=given or "",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    errors = re.sub(r"flash attention: on .*\n", "", done.stderr)
    # How Python itself came to run a module, which differs: by our own, or by Python's.
    errors = re.sub(r'  File "<frozen runpy>".*\n', "", errors)
    return done.returncode, re.sub(r" at 0x\w+", "", done.stdout), errors


def same(
    tmp_path: Path, program: str, arguments: list[str], given: str | None = None
) -> tuple[int, str, str]:
    """Runs the program by Python and by ours, each in a fresh folder of the same name."""
    outcomes = []
    for runner in ([], ["-m", "mlx_flash_runtime"]):
        folder = tmp_path / "work"
        lay_out(folder, program)
        outcomes.append(outcome(folder, [*runner, *arguments], given))
        folder.rename(tmp_path / f"work{len(outcomes)}")
    plain, ours = outcomes
    assert ours == plain
    return ours


def lay_out(folder: Path, program: str) -> None:
    """The program as a script, as a package, as a folder and as a zip file."""
    data = program.encode("latin-1" if "latin-1" in program else "utf-8")
    for name in ("scripts", "package", "folder"):
        (folder / name).mkdir(parents=True)
        (folder / name / "beside.py").write_text(BESIDE, encoding="utf-8")
        (folder / name / "__main__.py").write_bytes(data)
    (folder / "beside.py").write_text(BESIDE, encoding="utf-8")
    (folder / "package/__init__.py").touch()
    (folder / "package/module.py").write_bytes(data)
    (folder / "scripts/run.py").write_bytes(data)
    (folder / "link.py").symlink_to("scripts/run.py")
    with zipfile.ZipFile(folder / "app.zip", "w") as archive:
        archive.writestr("__main__.py", data)
        archive.writestr("beside.py", BESIDE)


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_script(program: str, tmp_path: Path) -> None:
    same(tmp_path, program, ["scripts/run.py", "--flag", "-m", "x"])


@pytest.mark.parametrize("program", ["tells of itself", "raises"])
@pytest.mark.parametrize("way", ["link.py", "-m package", "-m package.module", "folder", "app.zip"])
def test_other_ways(way: str, program: str, tmp_path: Path) -> None:
    same(tmp_path, PROGRAMS[program], [*way.split(), "--flag"])


def test_a_module_whose_classes_are_sent_to_others(tmp_path: Path) -> None:
    same(tmp_path, SPAWNS, ["-m", "package.module"])


@pytest.mark.parametrize("program", ["tells of itself", "ends with a status", "ends with words"])
@pytest.mark.parametrize("option", ["-c", "-"])
def test_a_command_and_standard_input(option: str, program: str, tmp_path: Path) -> None:
    text = PROGRAMS[program]
    if option == "-c":
        same(tmp_path, "", [option, text, "-x"])
    else:
        same(tmp_path, "", [option, "-x"], text)


def test_a_program_that_is_interrupted(tmp_path: Path) -> None:
    lay_out(tmp_path, "raise KeyboardInterrupt\n")
    plain = outcome(tmp_path, ["scripts/run.py"], None)
    ours = outcome(tmp_path, ["-m", "mlx_flash_runtime", "scripts/run.py"], None)
    assert ours[:2] == plain[:2]
    assert ours[2].splitlines()[-3:] == plain[2].splitlines()[-3:]


def test_a_compiled_file(tmp_path: Path) -> None:
    compiling = "import py_compile; py_compile.compile('scripts/run.py', 'run.pyc')"
    for arguments in (["-c", compiling], ["-m", "mlx_flash_runtime", "run.pyc", "x"]):
        if not (tmp_path / "scripts").exists():
            lay_out(tmp_path, "import sys\nprint(__file__, sys.argv)\n")
        status, output, errors = outcome(tmp_path, arguments, None)
        assert (status, errors) == (0, "")
    assert output == f"{os.path.join(tmp_path, 'run.pyc')} ['run.pyc', 'x']\n"


def test_a_folder_without_a_program(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, output, errors = outcome(tmp_path, ["-m", "mlx_flash_runtime", "empty"], None)
    assert (status, output) == (2, "")
    assert errors == "error: empty: there is no __main__.py in it\n"
