"""Makes docs/performance.md, and the table of workflows in README.md, of the results under
benchmarks/results; and what README.md says of Macs, of the planner's rules.

python benchmarks/performance_page.py [--check]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mac_gains
import macs
import page_claims
import page_headlines
import page_sections
from store import RESULTS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"
# The table of what a Mac gains stands in README.md between these two lines, and the measurements
# between those after them.
MAC_START = (
    "<!-- For Macs: made by `python benchmarks/performance_page.py`; a test holds it against the "
    "planner. -->"
)
MAC_END = "<!-- End of what is for Macs. -->"
START = (
    "<!-- Measured: made by `python benchmarks/performance_page.py`; a test holds them against "
    "benchmarks/results. -->"
)
END = "<!-- End of what was measured. -->"

INTRODUCTION = """\
# What flash attention gains, and where

<!-- Made by `python benchmarks/performance_page.py` of benchmarks/results; a test holds the two \
together. -->

Every number here is one of a file under `benchmarks/results`, made by the command above its \
table, all candidates in
one process, in turns, unless the words below the table say otherwise. *Plain* is \
softmax(QKᵀ)V in MLX operations, *stock* MLX's own function
`mx.fast.scaled_dot_product_attention`, *ours* the same call with flash attention enabled. \
`mlx-flash bench` and
`mlx-flash compare` do the same on your machine and with your scripts; `mlx-flash report` makes a \
page with plots of
what they wrote.
"""

NO_ROW = """\
## Macs without a row

Nobody who works on this has a Mac. There is no row yet for {chips}. Whoever has one of them fills \
in its rows with

```
make measure
```

which takes about ten minutes, and sends the one file that it names.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a page is out of date"
    )
    args = parser.parse_args()
    outdated = [
        path for path, text in pages(RESULTS).items() if path.read_text(encoding="utf-8") != text
    ]
    for path in outdated:
        if not args.check:
            path.write_text(pages(RESULTS)[path], encoding="utf-8")
        print(f"{'out of date' if args.check else 'wrote'}: {path.relative_to(ROOT)}")
    return 1 if args.check and outdated else 0


def pages(folder: Path) -> dict[Path, str]:
    """The text that each page should have, of the results in a folder."""
    results = page_sections.read(folder)
    figures = page_headlines.figures(results, page_sections.read_rows(folder))
    parts = [INTRODUCTION, f"## In short\n\n{figures}", page_claims.section(results)]
    parts += page_sections.sections(results, folder)
    chips = macs.unmeasured(macs.read(folder))
    if chips:
        parts.append(NO_ROW.format(chips=", ".join(chips)))
    readme = README.read_text(encoding="utf-8")
    readme = _between(readme, MAC_START, f"{mac_gains.table()}\n", MAC_END)
    measured = page_headlines.workflow_table(results)
    return {PAGE: "\n".join(parts), README: _between(readme, START, measured, END)}


def _between(text: str, start: str, inserted: str, end: str) -> str:
    """The text with other lines between two of its lines."""
    before, _, rest = text.partition(f"{start}\n")
    _, _, after = rest.partition(end)
    return f"{before}{start}\n\n{inserted}\n{end}{after}"


if __name__ == "__main__":
    sys.exit(main())
