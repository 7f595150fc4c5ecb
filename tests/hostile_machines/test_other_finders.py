"""`import mlx_lm` beside finders and loaders of every kind: what they load is loaded, once
patched, and put back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from patched_program import ATTEND, run

import mlx_flash_runtime

pytest.importorskip("mlx_lm")

# Each defines `other`, a finder for the list of finders. POINT is a module that the runtime
# patches.
POINT = "mlx_lm.models.base"
COMMON = f"""
import importlib, importlib.abc, importlib.machinery, importlib.util, sys
POINT = {POINT!r}

class Asking(importlib.abc.MetaPathFinder):
    # Asks all the others, as finders do that change what is found.
    def find_spec(self, name, path=None, target=None):
        for finder in sys.meta_path:
            if finder is not self:
                found = finder.find_spec(name, path, target)
                if found is not None:
                    return self.changed(found) if name == POINT else found
        return None

    def changed(self, found):
        return found

class Inner(importlib.abc.Loader):
    def __init__(self, theirs):
        self.theirs = theirs
    def create_module(self, spec):
        return self.theirs.create_module(spec)
    def exec_module(self, module):
        self.theirs.exec_module(module)
"""
OTHERS = {
    "asks the others": "other = Asking()",
    "asks the others twice": """
class Twice(Asking):
    def find_spec(self, name, path=None, target=None):
        super().find_spec(name, path, target)
        return super().find_spec(name, path, target)
other = Twice()
""",
    "asks Python's own question": """
class Question(Asking):
    asked = False
    def find_spec(self, name, path=None, target=None):
        if name != POINT or self.asked:
            return None
        self.asked = True
        try:
            return importlib.util.find_spec(name)
        finally:
            self.asked = False
other = Question()
""",
    "wraps the loader": """
class Wrapping(Asking):
    def changed(self, found):
        found.loader = Inner(found.loader)
        return found
other = Wrapping()
""",
    "loads lazily": """
class Lazy(Asking):
    def changed(self, found):
        found.loader = importlib.util.LazyLoader(found.loader)
        return found
other = Lazy()
""",
    "a loader with slots": """
class Slotted:
    __slots__ = ("theirs",)
    def __init__(self, theirs):
        self.theirs = theirs
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        self.theirs.exec_module(module)
class Slots(Asking):
    def changed(self, found):
        found.loader = Slotted(found.loader)
        return found
other = Slots()
""",
    "a loader that is a class": """
class Static:
    theirs = None
    @staticmethod
    def create_module(spec):
        return None
    @classmethod
    def exec_module(cls, module):
        cls.theirs.exec_module(module)
class Classes(Asking):
    def changed(self, found):
        Static.theirs = found.loader
        found.loader = Static
        return found
other = Classes()
""",
    "the same spec each time": """
class Same(Asking):
    kept = None
    def changed(self, found):
        self.kept = self.kept or found
        return self.kept
other = Same()
""",
    "equal to anything": """
class Equal(Asking):
    def __eq__(self, other):
        return True
    __hash__ = None
other = Equal()
""",
    "a copy of this one that knows of no other": """
class Copy:
    def find_spec(self, name, path, target=None):
        if name != POINT:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        found = next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)
        if found is not None and found.loader is not None:
            execute = found.loader.exec_module
            found.loader.exec_module = lambda module: execute(module)
        return found
other = Copy()
""",
}
UNKNOWN = {
    "a loader with load_module alone": """
class Old:
    def __init__(self, theirs):
        self.theirs = theirs
    def load_module(self, name):
        module = sys.modules[name] = type(sys)(name)
        module.__file__ = self.theirs.path
        module.__package__ = name.rpartition(".")[0]
        self.theirs.exec_module(module)
        return module
class Olds(Asking):
    def find_spec(self, name, path=None, target=None):
        if name != POINT:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path, target)
        found.loader = Old(found.loader)
        return found
other = Olds()
""",
    "a spec of its own kind": """
class Spec:
    def __init__(self, found):
        vars(self).update(vars(found))
        self.parent, self.cached, self.has_location = found.parent, found.cached, found.has_location
        self.__dict__["loader"] = found.loader
    def __setattr__(self, name, value):
        if name == "loader":
            raise AttributeError(name)
        super().__setattr__(name, value)
class Specs(Asking):
    def find_spec(self, name, path=None, target=None):
        found = importlib.machinery.PathFinder.find_spec(name, path, target) if name == POINT else None
        return found and Spec(found)
other = Specs()
""",
}
PLACES = {
    "before ours": "enable()\nsys.meta_path.insert(0, other)\n",
    "after ours": "sys.meta_path.insert(0, other)\nenable()\n",
}
IMPORTS = """
import contextlib, io, json, traceback
from mlx_flash_runtime import disable_flash_attention as disable, enable_flash_attention as enable
from mlx_flash_runtime.problem import masks
"""
PATCHED = """
from mlx_lm.models import base, cache
def depth(function):
    found = 0
    while hasattr(function, "__wrapped__"):
        found, function = found + 1, function.__wrapped__
    return found
print(depth(base.create_causal_mask), depth(cache.create_causal_mask), depth(base.scaled_dot_product_attention))
print(base.create_causal_mask(4).shape, masks.structure_of(base.create_causal_mask(8), 8, 8))
"""
# The module's own loader answers for it, and is asked for its source.
LOADER = "print(base.__spec__.loader is base.__loader__, 'mlx_flash' in type(base.__loader__).__module__)\n"
PUT_BACK = """
disable()
print(depth(base.create_causal_mask), depth(cache.create_causal_mask), depth(base.scaled_dot_product_attention))
forget()
from mlx_lm.models import base
print(depth(base.create_causal_mask))
"""
FAILING = """
execute = importlib.machinery.SourceFileLoader.exec_module
def fail(self, module):
    if module.__name__ == POINT:
        importlib.machinery.SourceFileLoader.exec_module = execute
        raise OSError("once")
    execute(self, module)
importlib.machinery.SourceFileLoader.exec_module = fail
enable()
try:
    import mlx_lm.models.base
except OSError as error:
    print(error)
"""
AGAIN = "importlib.reload(base)\nprint(depth(base.create_causal_mask))\n"
KEPT = "enable()\nkept = list(sys.meta_path)\ndisable()\nsys.meta_path[:] = kept\n"
# One after the other in one process, as mlx-lm takes seconds to load: each starts with the finders
# that there were.
DRIVER = """
import mlx_lm
def forget():
    for name in [name for name in sys.modules if name.startswith("mlx_lm.models")]:
        del sys.modules[name]
finders, said = list(sys.meta_path), {}
for name, scenario in json.load(open("scenarios.json")).items():
    forget()
    with contextlib.redirect_stdout(io.StringIO()) as lines:
        try:
            exec(scenario, dict(globals()))
        except BaseException:
            traceback.print_exc(file=lines)
    said[name] = lines.getvalue()
    disable()
    sys.meta_path[:] = finders
print(json.dumps(said))
"""
SCENARIOS = {
    **{
        f"{name}, {where}": f"{other}\n{place}{PATCHED}{LOADER}{PUT_BACK}"
        for name, other in OTHERS.items()
        for where, place in PLACES.items()
    },
    **{
        f"{name}, {where}": f"{other}\n{place}{PATCHED}{PUT_BACK}"
        for name, other in UNKNOWN.items()
        for where, place in PLACES.items()
    },
    "fails once": FAILING + PATCHED,
    "loaded again": f"enable()\n{PATCHED}{AGAIN}",
    "finders come back": KEPT + PATCHED,
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each scenario printed."""
    folder = tmp_path_factory.mktemp("finders")
    (folder / "scenarios.json").write_text(json.dumps(SCENARIOS), encoding="utf-8")
    done = run(IMPORTS + COMMON + DRIVER, folder, "-Wignore")
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("other", OTHERS)
def test_beside_another_finder_modules_are_patched_once_and_put_back(
    other: str, place: str, said: dict[str, str]
) -> None:
    assert said[f"{other}, {place}"] == "1 1 1\n(4, 4) Causal()\nTrue False\n0 0 0\n0\n"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("other", UNKNOWN)
def test_what_is_not_known_is_left_alone(other: str, place: str, said: dict[str, str]) -> None:
    # `cache` binds what `base` has: neither is patched.
    assert said[f"{other}, {place}"] == "0 0 0\n(4, 4) None\n0 0 0\n0\n"


def test_a_module_that_fails_to_load_is_found_again(said: dict[str, str]) -> None:
    assert said["fails once"] == "once\n1 1 1\n(4, 4) Causal()\n"


def test_a_module_that_is_loaded_again_is_patched_again(said: dict[str, str]) -> None:
    assert said["loaded again"] == "1 1 1\n(4, 4) Causal()\n1\n"


def test_a_list_of_finders_that_comes_back_patches_nothing_after_disable(
    said: dict[str, str],
) -> None:
    assert said["finders come back"] == "0 0 0\n(4, 4) None\n"


COPIES = """
import sys
import mlx.core as mx
stock = [mx.fast.scaled_dot_product_attention]  # in a list, where no patch comes
import mlx_flash_runtime as one
import theirs.attention as two

def on(copy):
    copy.enable_flash_attention()

def off(copy):
    copy.disable_flash_attention()

def state():
    x = mx.ones((1, 1, 4, 8))
    mx.eval(mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0))
    mx.eval(one.flash_attention(x, x, x, scale=1.0), two.flash_attention(x, x, x, scale=1.0))
    from mlx_lm.models import base
    return mx.fast.scaled_dot_product_attention is stock[0], hasattr(base.create_causal_mask, "__wrapped__")

for looks in (True, False):  # into mlx-lm while it is patched, which loads it, or after that alone
    for order in ORDERS:
        for name in [name for name in sys.modules if name.startswith("mlx_lm.models")]:
            del sys.modules[name]
        seen = []
        for step in order.split():
            exec(step)
            seen += [state()] if looks else []
        print(looks, state(), *seen[:2])
"""
ORDERS = [
    "on(one) on(two) off(one) off(two)",
    "on(one) on(two) off(two) off(one)",
    "on(two) on(one) off(one) off(two)",
    "on(two) on(one) off(two) off(one)",
    "on(one) on(two) on(one) on(two) off(one) off(two) on(two) off(two)",
]


@pytest.fixture
def two_copies(tmp_path: Path) -> Path:
    """A folder with a copy of the runtime under another name, vendored in a package."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/__init__.py").touch()
    shutil.copytree(Path(mlx_flash_runtime.__file__).parent, tmp_path / "theirs/attention")
    return tmp_path


def test_two_copies_of_the_runtime(two_copies: Path) -> None:
    done = run(f"ORDERS = {ORDERS}\n{COPIES}", two_copies)
    assert done.returncode == 0, done.stderr
    on, off = (False, True), (True, False)
    assert done.stdout.splitlines() == [f"True {off} {on} {on}"] * len(ORDERS) + [
        f"False {off}"
    ] * len(ORDERS)
    assert (
        "flash attention: theirs.attention, another copy of this package, has it on already"
        in done.stderr
    )


def test_a_copy_that_is_imported_while_the_other_is_on(two_copies: Path) -> None:
    program = (
        "import mlx.core as mx\nstock = [mx.fast.scaled_dot_product_attention]\nimport mlx_flash_runtime as one\n"
        "one.enable_flash_attention()\nimport theirs.attention as two\ntwo.enable_flash_attention()\n"
        f"{ATTEND}one.disable_flash_attention()\ntwo.disable_flash_attention()\n"
        "print(mx.fast.scaled_dot_product_attention is stock[0], two.patching.patch.stock.attention is stock[0])\n"
    )
    done = run(program, two_copies)
    assert done.stdout == "True True\n", done.stderr
