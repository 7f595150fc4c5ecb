"""The runtime in a pyproject.toml: one entry beside MLX, everything else byte for byte, and out
again."""

from __future__ import annotations

import itertools

import pytest
from marked import pair

from flash_integrate.errors import FileError
from flash_integrate.vendor.origin import Origin
from flash_integrate.vendor.pyproject_toml import (
    add_to_pyproject,
    pyproject_lists_mlx,
    remove_from_pyproject,
)
from flash_integrate.vendor.requirement import (
    CannotAdd,
)
from flash_integrate.vendor.requirements_txt import (
    remove_from_requirements,
)

INDEX = Origin()


PYPROJECT = {
    "several lines": """\
[project]
name = "x"
dependencies = [
    "mlx>=0.30",  # the framework
«    "mlx-flash-runtime",
»    "numpy",
]
""",
    "last item without a comma": """\
[project]
dependencies = [
  "numpy",
«  "mlx-flash-runtime",
»  "mlx"
]
""",
    "column 0, CRLF": '[project]\r\ndependencies = [\r\n"mlx",\r\n«"mlx-flash-runtime",\r\n»]\r\n',
    "one line": "[project]\ndependencies = ['mlx'«, 'mlx-flash-runtime'», 'numpy']",
    "one line, only item": '[project]\ndependencies=["mlx[cpu]"«, "mlx-flash-runtime"»]\n',
    "comma first": """\
[project]
dependencies = [
    "numpy"
  , "mlx"«, "mlx-flash-runtime"»
]
""",
    "closed on the item's line": """\
[project]
dependencies = ["numpy",
    "mlx"«, "mlx-flash-runtime"»]
""",
    "marker": """\
[project]
dependencies = [
  "mlx; sys_platform == 'darwin'",
«  "mlx-flash-runtime; sys_platform == 'darwin'",
»]
""",
    "marker in double quotes": """\
[project]
dependencies = ['mlx; os_name == "1"'«, 'mlx-flash-runtime; os_name == "1"'»]
""",
    "brackets and commas in strings and comments": """\
[project]
dependencies = [  # ], "mlx",
  "a[b,c]>=1,<2",
  "mlx-lm[train]>=0.3,<1",
«  "mlx-flash-runtime",
»]
""",
    "every extra that lists it": """\
[project]
dependencies = ["numpy"]

[project.optional-dependencies]
mac = ["mlx"«, "mlx-flash-runtime"»]
dev = ["pytest"]
all = [
\t"mlx",
«\t"mlx-flash-runtime",
»]
""",
    "dotted key": 'project.dependencies = ["mlx"«, "mlx-flash-runtime"»]\n',
    "inline table, and a table of the same name": (
        'project = { dependencies = ["mlx"«, "mlx-flash-runtime"»] }\n'
        '[tool.x]\ndependencies = ["mlx"]\n'
    ),
    "the same text in a string and a comment": (
        'x = """\n[project]\ndependencies = ["mlx"]\n"""\n[project]\n'
        'dependencies = ["mlx"«, "mlx-flash-runtime"»]  # "mlx"\n'
    ),
    "dependency group": """\
[dependency-groups]
run = [{ include-group = "base" }, "mlx"«, "mlx-flash-runtime"»]
base = ["numpy"]
""",
    "Poetry": """\
[tool.poetry.dependencies]
python = "^3.10"
mlx = "^0.30"  # the framework
«mlx-flash-runtime = "*"
»numpy = "*"

[build-system]
requires = []
""",
    "Poetry with conditions, at the end": """\
[tool.poetry.dependencies]
mlx = { version = "^0.30", markers = "sys_platform == 'darwin'" }«
mlx-flash-runtime = { version = "*", markers = "sys_platform == 'darwin'" }»""",
}


@pytest.mark.parametrize("marked", PYPROJECT.values(), ids=PYPROJECT)
def test_pyproject(marked: str) -> None:
    before, after = pair(marked)
    assert add_to_pyproject(before, INDEX).decode() == after.decode()
    assert add_to_pyproject(after, INDEX) == after
    assert remove_from_pyproject(after).decode() == before.decode()
    assert remove_from_pyproject(before) == before


def test_every_layout_of_an_array_goes_there_and_back() -> None:
    """Where MLX stands, what separates the items, trailing commas, comments and closings, in every
    combination."""
    orders = [["mlx"], ["mlx", "numpy"], ["numpy", "mlx"], ["numpy", "mlx", "mlx-lm", "rich"]]
    separators = [", ", ",", ",\n    ", ",  # why\n    ", "\n  , ", " ,\n\n    "]
    openings, closings = (
        ["[", "[ ", "[\n    ", "[ # all\n    "],
        ["]", ",]", "\n]", ",\n]", ",  # last\n]"],
    )
    tried = 0
    for order, separator, opening, closing, newline in itertools.product(
        orders, separators, openings, closings, ["\n", "\r\n"]
    ):
        array = opening + separator.join(f'"{name}"' for name in order) + closing
        before = f"[project]\ndependencies = {array}\nname = 'x'\n".replace("\n", newline).encode()
        after = add_to_pyproject(before, INDEX)
        assert after.count(b'"mlx-flash-runtime"') == 1
        assert remove_from_pyproject(after) == before
        tried += 1
    assert tried == len(orders) * len(separators) * len(openings) * len(closings) * 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'[project]\ndependencies = ["numpy"]\n', "lists no MLX package"),
        (b'[project]\ndependencies = ["""mlx"""]\n', "form that can't be edited"),
        (b'[tool.poetry.dependencies.mlx]\nversion = "*"\n', "form that can't be edited"),
        (
            b'[tool.poetry.dependencies]\nmlx = { version = "*", optional = true }\n',
            "optional dependency",
        ),
    ],
)
def test_a_pyproject_that_is_left_alone_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(CannotAdd, match=reason):
        add_to_pyproject(data, INDEX)


def test_a_dependency_that_the_user_gave_a_version_is_left() -> None:
    data = b'[project]\ndependencies = ["mlx", "mlx-flash-runtime>=0.1"]\n'
    assert add_to_pyproject(data, INDEX) == remove_from_pyproject(data) == data


def test_a_file_that_is_not_toml_is_an_error() -> None:
    with pytest.raises(FileError, match="not valid TOML"):
        pyproject_lists_mlx(b"[project\n")


def test_an_entry_is_taken_out_after_the_user_has_sorted_the_list() -> None:
    assert remove_from_requirements(b"accelerate\nmlx-flash-runtime\nmlx\n") == b"accelerate\nmlx\n"
    sorted_list = b'[project]\ndependencies = [\n  "mlx-flash-runtime",\n  "a", "mlx",\n]\n'
    assert remove_from_pyproject(sorted_list) == b'[project]\ndependencies = [\n  "a", "mlx",\n]\n'
    first = b'[project]\ndependencies = ["mlx-flash-runtime", "mlx"]\n'
    assert remove_from_pyproject(first) == b'[project]\ndependencies = ["mlx"]\n'
