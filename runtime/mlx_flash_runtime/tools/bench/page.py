"""Results as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from .columns import tables_of
from .machine import described
from .tables import Document, NotAResult, Table

_STYLE = """
:root {
  color-scheme: light dark;
  --sans: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  --paper: #fff; --ink: #1f2328; --soft: #59636e; --faint: #d8dde3; --stripe: #f6f7f9;
  --bad: #b00020;
  --plain: #9a9a9a; --stock: #3a6ea5; --ours: #d1702d; --without: #6b9e78;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e4e7ea; --soft: #9aa4ae; --faint: #343b42; --stripe: #1b1f23;
    --bad: #ff7b86;
    --plain: #8b8f94; --stock: #6fa8e0; --ours: #f0955a; --without: #86bf96;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 3rem 1.5rem 4rem; max-width: 78rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 var(--sans); }
h1 { font-size: 1.75rem; line-height: 1.2; font-weight: 650; letter-spacing: -.01em;
  margin: 0 0 .35rem; }
h2 { font-size: 1.25rem; font-weight: 650; margin: 3.5rem 0 .25rem; padding-top: 1.5rem;
  border-top: 1px solid var(--faint); }
p { margin: .25rem 0; max-width: 60rem; }
nav ol { margin: 1rem 0 0; padding-left: 1.25rem; }
nav code { color: var(--soft); }
a { color: var(--stock); }
.machine { color: var(--soft); font-size: .9rem; }
.finding { margin: 1rem 0; padding-left: .9rem; border-left: 3px solid var(--ours);
  white-space: pre-line; }
code { font: .85em var(--mono); overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; overflow-x: auto; }
figure svg { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; margin: 1rem 0 1.5rem; }
table { border-collapse: collapse; font-size: .83rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { padding: .32rem .6rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; border-bottom: 1.5px solid var(--ink); vertical-align: bottom; }
td { border-bottom: 1px solid var(--faint); }
tbody tr:nth-child(even) { background: var(--stripe); }
td.word, th.word { text-align: left; }
td.long { white-space: normal; min-width: 18rem; }
tr.bad td { color: var(--bad); font-weight: 650; }
details { color: var(--soft); font-size: .88rem; }
summary { cursor: pointer; }
details li { margin: .3rem 0; max-width: 60rem; }
@media print { body { padding: 0; } details { display: none; } }
"""


_LONG = 40  # characters of a cell that may break its line
# What reading rows, texts or a machine raises where a file was changed after it was written.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def page(documents: Mapping[Path, Document], *, pictures: bool = True) -> str:
    """The page: each result with its picture (for which this needs matplotlib), its tables and what
    the words in them mean. Raises NotAResult, which names the file, where its rows or texts are not
    those of a result."""
    contents, sections = "", ""
    for number, (path, document) in enumerate(documents.items()):
        try:
            sections += _section(document, number, pictures)
            contents += _entry(document, number)
        except _DAMAGE as error:
            raise NotAResult(
                f"{path} is not as mlx-flash wrote it: {type(error).__name__}: {error}"
            ) from error
    several = len(documents) > 1
    title = "Attention on MLX, measured" if several else next(iter(documents.values())).title
    nav = f"<nav><ol>{contents}</ol></nav>" if several else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>{nav}</header>\n{sections}</body>\n</html>\n"
    )


def _entry(document: Document, number: int) -> str:
    title, command = escape(document.title), escape(document.command)
    return f'<li><a href="#r{number}">{title}</a> <code>{command}</code></li>'


def _section(document: Document, number: int, pictures: bool) -> str:
    machine, command = escape(described(document.machine)), escape(document.command)
    parts = [
        f'<section>\n<h2 id="r{number}">{escape(document.title)}</h2>',
        f'<p class="machine">{machine}<br><code>{command}</code></p>',
    ]
    for finding in document.findings:
        parts.append(f'<p class="finding">{escape(finding)}</p>')
    if pictures:
        parts.append(f"<figure>{_picture(document, number)}</figure>")
    for table in tables_of(document):
        parts.append(_table(table))
    parts.append("<details><summary>What the words mean</summary><ul>")
    for definition in document.definitions:
        parts.append(f"<li>{escape(definition)}</li>")
    parts.append("</ul></details>\n</section>\n")
    return "\n".join(parts)


def _picture(document: Document, number: int) -> str:
    from . import plots  # needs matplotlib, which who wants no picture need not have

    svg = plots.inline_svg(plots.figure(document), escape(document.title, quote=True))
    # Two pictures of one page must not share the names of their parts.
    svg = svg.replace('id="', f'id="r{number}-').replace("url(#", f"url(#r{number}-")
    return svg.replace('href="#', f'href="#r{number}-')


def _table(table: Table) -> str:
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    head = f"<thead><tr>{_cells('th', table.headings, table.words)}</tr></thead>"
    rows = []
    for number, cells in enumerate(table.cells):
        start = '<tr class="bad">' if number in table.bad else "<tr>"
        rows.append(f"{start}{_cells('td', cells, table.words)}</tr>")
    body = f"<tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table>{caption}{head}{body}</table></div>'


def _cells(tag: str, cells: Sequence[str], words: Sequence[bool]) -> str:
    made = ""
    for cell, holds_words in zip(cells, words, strict=True):
        kinds = ["word"] if holds_words else []
        if len(cell) > _LONG:
            kinds.append("long")
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        made += f"<{tag}{kind}>{escape(cell)}</{tag}>"
    return made
