"""`--html`: the page to review a run on; in a browser where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from conftest import Run

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
SCRIPT = """\
import argparse
import mlx.core as mx

parser = argparse.ArgumentParser()
args = parser.parse_args()
x = mx.zeros((1, 1, 8, 8))[:, ::1]
print(mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0))
"""


@pytest.fixture
def page_of(flash_integrate: Run, tmp_path: Path) -> Path:
    """The page of a script that changes, one that can't be read, and one without MLX."""
    repo = tmp_path / "a repo"
    repo.mkdir()
    (repo / "run.py").write_text(SCRIPT)
    (repo / "other.py").write_text("print('</main><script>alert(1)</script>')\n")
    (repo / "broken.py").write_text(
        "import mlx.core as mx\nmx.fast.scaled_dot_product_attention(\n"
    )
    flash_integrate(repo, "--dry-run", "--html", tmp_path / "review.html")
    return tmp_path / "review.html"


def lines_of(page: str) -> list[str]:
    return [unescape(line) for line in re.findall(r"<span[^>]*>(.*?)</span>", page)]


def test_every_hunk_is_there_with_its_reason(page_of: Path) -> None:
    page = page_of.read_text(encoding="utf-8")
    assert page.count("<article") == 3
    assert 'data-kind="changed"' in page
    assert "<p>Attention: run.py:7 -&gt; mx.fast.scaled_dot_product_attention</p>" in page
    assert "no MLX" in page
    lines = lines_of(page)
    assert any(line.startswith("@@ -") for line in lines)
    assert any(line.startswith("+") and "enable_flash_attention" in line for line in lines)
    assert " x = mx.zeros((1, 1, 8, 8))[:, ::1]" in lines


def test_the_page_needs_nothing_else_and_runs_nothing_of_the_repo(page_of: Path) -> None:
    page = page_of.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=|url\(|@import""", page)
    assert "default-src 'none'" in page
    assert page.count("<script>") == 1


def test_what_stands_in_a_file_is_no_part_of_the_page(flash_integrate: Run, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "run.py").write_text(SCRIPT.replace("x = ", "# @FILES@ </pre><b>\nx = "))
    flash_integrate(repo, "--dry-run", "--html", tmp_path / "review.html")
    page = (tmp_path / "review.html").read_text(encoding="utf-8")
    assert page.count("<article") == 1
    assert "# @FILES@ &lt;/pre&gt;&lt;b&gt;" in page


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_filter_and_keys_in_a_browser(page_of: Path, tmp_path: Path) -> None:
    steps = """
    <script>
    const said = [document.getElementById("count").textContent];
    const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", {key}));
    press("j"); said.push(document.activeElement.dataset.kind);
    press("j"); said.push(document.activeElement.dataset.kind);
    press("k"); said.push(document.activeElement.dataset.kind);
    press("/"); said.push(document.activeElement.id);
    filter.value = "enable_flash"; filter.dispatchEvent(new Event("input"));
    said.push(document.getElementById("count").textContent);
    document.title = said.join(" | ");
    </script></body>"""
    driven = tmp_path / "driven.html"
    driven.write_text(
        page_of.read_text(encoding="utf-8").replace("</body>", steps), encoding="utf-8"
    )
    arguments = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
    )
    done = subprocess.run(
        [str(BROWSER), *arguments, "--dump-dom", driven.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr
    expected = ["2 of 3 shown", "changed", "failed", "changed", "filter", "1 of 3 shown"]
    assert title[1].split(" | ") == expected
