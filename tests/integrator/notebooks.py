"""Notebooks for tests, in the ways in which programs write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbformat import v4

from flash_integrate.inserted.snippets import Style, enable

ROOT = Path(__file__).parents[2]


CASES = ROOT / "fixtures" / "notebooks"


CALL = enable(Style(), 0)


INSERTED = "\n" + CALL


IMPORTS = "import time\n\nfrom mlx_lm import generate, load\n"


WORK = 'prompt = "¿Dónde está la biblioteca? 📚 \u2028"\nmodel, tokenizer = load("model")'


def notebook(*sources: str) -> Any:
    """A notebook with a Markdown cell, code cells and an output that speak of MLX too."""
    image = v4.new_output(
        "display_data", {"image/png": "iVBORw0KGgo=\n", "text/plain": "<mlx_lm – plot>"}
    )
    cells = [
        v4.new_code_cell(source, outputs=[image], id=f"cell-{number}")
        for number, source in enumerate(sources)
    ]
    metadata = {
        "language_info": {"name": "python"},
        "custom": {"a/b": 1e-07, "z": "import mlx_lm\n"},
    }
    return v4.new_notebook(
        cells=[v4.new_markdown_cell("# `import mlx_lm`", id="title"), *cells], metadata=metadata
    )


def as_saved_by_jupyter(made: Any) -> bytes:
    return (nbformat.writes(made) + "\n").encode()


def indented_by_two(made: Any) -> bytes:
    return (
        json.dumps(json.loads(nbformat.writes(made)), indent=2, ensure_ascii=False).encode() + b"\n"
    )


def in_ascii(made: Any) -> bytes:
    return json.dumps(json.loads(nbformat.writes(made)), indent=1, sort_keys=True).encode()


def on_one_line(made: Any) -> bytes:
    return json.dumps(json.loads(nbformat.writes(made))).encode()


def with_string_sources(made: Any) -> bytes:
    return json.dumps(made, indent=1, ensure_ascii=False).encode() + b"\n"


def with_one_item_per_source(made: Any) -> bytes:
    document = json.loads(json.dumps(made))
    for cell in document["cells"]:
        cell["source"] = [cell["source"]]
    return json.dumps(document, indent=4).encode() + b"\n"


def with_crlf(made: Any) -> bytes:
    return as_saved_by_jupyter(made).replace(b"\n", b"\r\n")


def with_tabs(made: Any) -> bytes:
    return json.dumps(
        json.loads(nbformat.writes(made)), indent="\t", separators=(" ,", " : ")
    ).encode()


def without_final_newline(made: Any) -> bytes:
    return as_saved_by_jupyter(made).rstrip(b"\n")


WRITERS = [
    as_saved_by_jupyter,
    indented_by_two,
    in_ascii,
    on_one_line,
    with_string_sources,
    with_one_item_per_source,
    with_crlf,
    with_tabs,
    without_final_newline,
]


Writer = Callable[[Any], bytes]


SOURCES = {
    "in the middle": [IMPORTS + WORK, "generate(model, tokenizer, prompt)"],
    "at the end": ["import os", IMPORTS.rstrip("\n"), WORK],
    "at the end, with a newline": [IMPORTS, WORK],
    "one line": ["from mlx_lm import load", WORK],
    "windows": [(IMPORTS + WORK).replace("\n", "\r\n")],
}


def write_all(folder: Path, made: dict[str, Any]) -> dict[str, bytes]:
    """Writes notebooks in every way; the files by their names."""
    files = {
        f"{name}, {write.__name__}.ipynb": write(made[name]) for name in made for write in WRITERS
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.ipynb")}


def sources(data: bytes) -> list[str]:
    return [
        cell.source for cell in nbformat.reads(data, as_version=4).cells if cell.cell_type == "code"
    ]
