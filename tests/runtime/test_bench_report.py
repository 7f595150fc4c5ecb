"""`mlx-flash report`: one page that holds every number, needs nothing else, and survives what
results may hold."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlx_flash_runtime.tools.bench import columns, tables
from mlx_flash_runtime.tools.cli.group import mlx_flash

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
SOME = [
    RESULTS / f"{name}_cpu.json"
    for name in ("grid", "grid_causal", "workflow_lora", "workflow_chat")
]
VOID = {"meta", "br"}
BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(mlx_flash, ["report", *map(str, arguments)])


class Elements(HTMLParser):
    """What of a page can be asked for: its ids, what refers to something, the text; whether every
    element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.open += [tag] if tag not in VOID else []
        for name, value in attrs:
            self.ids += [value or ""] if name == "id" else []
            self.references += (
                [value or ""] if name in ("href", "src", "xlink:href", "action", "data") else []
            )

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("report") / "page.html"
    result = run(*SOME, "--html", target)
    assert result.exit_code == 0, result.output
    return target.read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(page: str) -> None:
    elements = Elements(page)
    assert all(reference.startswith("#") for reference in elements.references)
    assert not {"script", "link", "iframe", "img"} & set(elements.tags)
    assert re.findall(r"@import|url\((?!#)", page) == []


def test_without_matplotlib_the_page_has_no_plots(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    code = (
        "import sys; sys.modules['matplotlib'] = None; "
        "from mlx_flash_runtime.tools.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "report", *SOME, "--html", target]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pip install 'mlx-flash-runtime[plot]'" in done.stderr
    elements = Elements(target.read_text(encoding="utf-8"))
    assert elements.tags["svg"] == 0
    assert elements.tags["table"] >= len(SOME)


def test_what_a_page_refers_to_is_there_once(page: str) -> None:
    elements = Elements(page)
    assert max(Counter(elements.ids).values()) == 1
    assert {reference[1:] for reference in elements.references} <= set(elements.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(elements.ids)


def test_the_page_holds_every_cell_and_a_picture_of_each_result(page: str) -> None:
    elements = Elements(page)
    assert elements.tags["svg"] == len(SOME)
    for path in SOME:
        document = tables.load(path)
        for table in columns.tables_of(document):
            assert all(cell in elements.text for row in table.cells for cell in row)
        assert document.command in elements.text


LOOKED_AT = """
<script>
const wide = [...document.querySelectorAll(".scroll")];
const room = document.documentElement.clientWidth;
const tables = wide.filter((box) => box.scrollWidth > box.clientWidth);
const pictures = [...document.querySelectorAll("svg")].filter((svg) => svg.clientHeight > 100);
location.hash = document.querySelector("nav li:last-child a").getAttribute("href");
const last = document.querySelector(":target").getBoundingClientRect().top;
document.title = [
  document.documentElement.scrollWidth <= room ? "fits" : "too wide",
  tables.length > 0 ? "tables scroll" : "no table scrolls",
  `${pictures.length} pictures`,
  last < innerHeight ? "jumps" : "stays",
  performance.getEntriesByType("resource").length + " loaded",
].join(" | ");
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_the_page_in_a_small_window_of_a_browser(page: str, tmp_path: Path) -> None:
    """The page stays as wide as the window, its tables scroll by themselves, its pictures are
    there, and a line of the contents leads to its result; nothing is loaded."""
    looked_at = tmp_path / "page.html"
    looked_at.write_text(page.replace("</body>", LOOKED_AT), encoding="utf-8")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=600,900"]
    profile = f"--user-data-dir={tmp_path}/profile"
    done = subprocess.run(
        [str(BROWSER), *arguments, profile, "--dump-dom", looked_at.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr
    expected = ["fits", "tables scroll", f"{len(SOME)} pictures", "jumps", "0 loaded"]
    assert title[1].split(" | ") == expected


def test_what_a_result_says_is_text(tmp_path: Path) -> None:
    result = json.loads(SOME[0].read_text(encoding="utf-8"))
    result |= {
        "title": '<b>"1 < 2"',
        "command": "mlx-flash compare -- python '<i>.py'",
        "findings": ["a & <u>"],
    }
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    assert run(tmp_path / "result.json", "--html", tmp_path / "page.html").exit_code == 0
    elements = Elements((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert not {"b", "i", "u"} & set(elements.tags)
    assert "a & <u>" in elements.text


def test_rows_without_numbers_are_shown(tmp_path: Path) -> None:
    for path, kind in ((SOME[0], "grid"), (SOME[2], "workflow")):
        result = json.loads(path.read_text(encoding="utf-8"))
        for row in result["rows"]:
            row |= {
                key: None
                for key in row
                if re.search(r"_ms$|_s$|_mib$|_error$|stability$|^over_|share|bound", key)
            }
            row |= {key: "out of memory" for key in row if key.endswith("_status")}
        (tmp_path / f"{kind}.json").write_text(json.dumps(result), encoding="utf-8")
    result = run(
        tmp_path / "grid.json", tmp_path / "workflow.json", "--html", tmp_path / "page.html"
    )
    assert result.exit_code == 0, result.output
    assert "out of memory" in Elements((tmp_path / "page.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{", "is not JSON"),
        ("[]", "is not a result"),
        ('{"kind": "grid"}', "is not a result"),
    ],
)
def test_what_is_no_result_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    result = run(path, "--html", tmp_path / "page.html")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"rows": None},
        {"rows": [{}]},
        {"rows": "abc"},
        {"machine": {}},
        {"title": 3},
        {"definitions": [None]},
        {"seconds": "soon"},
    ],
)
@pytest.mark.parametrize("name", ["grid_cpu", "workflow_chat_cpu", "compare_cpu"])
def test_a_result_that_was_changed_is_one_line(
    name: str, damage: dict[str, Any], tmp_path: Path
) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    if "seconds" in damage:
        times = [key for key in result["rows"][0] if re.search(r"_ms$|_per_s$|seconds$", key)]
        result["rows"][0] |= dict.fromkeys(times, damage["seconds"])
    else:
        result |= damage
    path = tmp_path / "x.json"
    path.write_text(json.dumps(result), encoding="utf-8")
    done = run(SOME[0], path, "--html", tmp_path / "page.html")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {path} is not ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


def test_a_page_is_not_written_over_its_own_results(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    result.write_bytes(SOME[0].read_bytes())
    (tmp_path / "link.html").symlink_to(result)
    (tmp_path / "same.html").hardlink_to(result)
    for target in ("result.json", "link.html", "same.html"):
        refused = run(SOME[1], result, "--html", tmp_path / target)
        assert (refused.exit_code, "is one of the results" in refused.output) == (2, True)
    assert result.read_bytes() == SOME[0].read_bytes()


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    result = run(SOME[0], "--html", tmp_path / "nowhere" / "page.html")
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"error: {tmp_path}/nowhere/page.html: there is no folder {tmp_path}/nowhere\n"
    )


def test_a_result_without_the_routes_of_its_timed_calls_says_whose_they_are() -> None:
    new, old = {"routes": "native 92%, cuda_kernel 8%"}, {"route": "cuda_kernel"}
    earlier = columns.routes_column([old])
    assert (earlier.heading, earlier.cell(old)) == ("route of the first calls", "cuda_kernel")
    column = columns.routes_column([new, old])
    assert column.heading == "routes"
    assert [column.cell(row) for row in (new, old)] == [
        "native 92%, cuda_kernel 8%",
        "cuda_kernel (first calls)",
    ]
