"""`mlx-flash bench grid`: its numbers agree with each other, its checks find what is wrong, its
files hold the rows."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from arithmetic import multiplies_as_tf32, needs_float32
from backends import METAL, on_cpu, pretend
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from mlx_flash_runtime import stock
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.routes import blockwise
from mlx_flash_runtime.tools.bench import check, columns, grid, inputs, problems, tables
from mlx_flash_runtime.tools.bench.machine import machine
from mlx_flash_runtime.tools.bench.timing import Timing
from mlx_flash_runtime.tools.cli.group import mlx_flash

SMALL = ("--preset", "claims", "--batch", "1", "--length", "24", "--head-dim", "16", "--heads", "2")
SMALL += ("--rounds", "3")
LOOSE_SECONDS = st.floats(1e-7, 1e3)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(mlx_flash, ["bench", "grid", *arguments])


@pytest.fixture(autouse=True)
def _short_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timed regions of a millisecond: no test asks how exact the times are."""
    monkeypatch.setattr(grid, "_REGION", 1e-3)


@pytest.fixture
def memory_limit() -> Iterator[int]:
    """What MLX may still take: too little for the scores of 2,048 tokens, enough for those of
    64."""
    before = mx.set_memory_limit(mx.get_active_memory() + 40 * 2**20)
    yield 40 * 2**20
    mx.set_memory_limit(before)


def document(rows: list[grid.Row]) -> tables.Document:
    return tables.Document("grid", "title", "command", machine(), (), rows, grid.summary(rows))


@given(st.lists(st.tuples(LOOSE_SECONDS, LOOSE_SECONDS, LOOSE_SECONDS), min_size=1, max_size=4))
def test_the_table_is_consistent_whatever_was_measured(
    measured: list[tuple[float, float, float]],
) -> None:
    rows = []
    for number, seconds in enumerate(measured):
        problem = Problem(1, 8, 8, 64 + number, 64 + number, 32, 32)
        row = {**problems.words_of(problem), "routes": "native", "rounds": 3}
        for name, value in zip(grid.CANDIDATES, seconds, strict=True):
            spread = Timing((0.9 * value, value, 1.1 * value))
            row |= {f"{name}_status": grid.OK, f"{name}_peak_mib": 1.0, f"{name}_error": 1e-7}
            row |= grid.timed(problem, name, spread)
        rows.append(row | grid.speedups(row))
    table, summary = columns.tables_of(document(rows))
    shown = [dict(zip(table.headings, cells, strict=True)) for cells in table.cells]
    for cells in shown:
        plain_ms, stock_ms, ours_ms = (
            float(cells[f"{name} ms"].split(" ")[0]) for name in grid.CANDIDATES
        )
        over_plain, over_stock = (
            float(cells[key].replace(",", "").removesuffix(" ~")) for key in ("× plain", "× stock")
        )
        assert over_plain == round(plain_ms / ours_ms, 2)
        assert over_stock == round(stock_ms / ours_ms, 2)
    gains = [row["over_plain"] for row in rows]
    total = dict(zip(summary.headings, summary.cells[0], strict=True))
    assert float(total["mean × plain"].replace(",", "")) == round(math.fsum(gains) / len(gains), 2)
    assert total["at 1.15× or better"] == f"{sum(gain >= 1.15 for gain in gains)} of {len(gains)}"


@pytest.mark.parametrize("phase", problems.PHASES)
@pytest.mark.parametrize("mask", ["none", "causal", "window:8", "bool", "additive"])
def test_every_phase_and_mask_is_measured_and_right(phase: str, mask: str) -> None:
    wanted = problems.cross_product(
        (2,), (40,), (16,), (4,), (2,), problems.DTYPES, (mask,), (phase,)
    )
    rows = list(grid.measure(wanted, 3))
    assert [row["dtype"] for row in rows] == list(problems.DTYPES)
    assert {(row["mask"], row["phase"]) for row in rows} == {(mask, phase)}
    for row in rows:
        for name in grid.CANDIDATES:
            assert row[f"{name}_status"] == grid.OK
            assert row[f"{name}_low_ms"] <= row[f"{name}_ms"] <= row[f"{name}_high_ms"]
            assert row[f"{name}_peak_mib"] > 0
        assert row["over_plain"] == round(row["plain_ms"] / row["ours_ms"], 2)
        assert row["routes"]


def test_the_default_is_what_language_models_do() -> None:
    for backend, longest in (("metal", 4096), ("cuda", 4096), ("cpu", 2048)):
        found = problems.preset("models", {}, backend)
        assert {problem.mask for problem in found} == {"causal"}
        assert {problem.phase for problem in found} == {"prefill", "decode", "training"}
        lengths = [problem.key_length for problem in found]
        assert (min(lengths), max(lengths)) == (128, longest)
        assert all(problem.key_heads < problem.query_heads for problem in found)


def test_options_stand_in_the_place_of_a_presets_own() -> None:
    found = problems.preset("models", {"heads": (7,), "length": (40,), "dtype": None}, "cpu")
    assert {(one.query_heads, one.key_heads, one.key_length) for one in found} == {(7, 7, 40)}
    assert {one.dtype for one in found} == {"bfloat16"}


def test_the_claims_are_the_eight_configurations() -> None:
    eight = problems.preset("claims", {}, "cpu")
    assert {(c.batch, c.key_length, c.head_dim) for c in eight} == {
        (batch, length, dim) for batch in (1, 2) for length in (64, 128) for dim in (32, 64)
    }
    assert {(c.query_heads, c.key_heads, c.mask, c.phase) for c in eight} == {
        (8, 8, "none", "prefill")
    }
    assert len(eight) == 8


@pytest.mark.parametrize("phase", problems.PHASES)
@pytest.mark.parametrize("mask", ["none", "causal", "window:8", "window:100", "bool", "additive"])
def test_inputs_are_those_of_the_problem_and_a_row_has_the_words_of_the_options(
    phase: str, mask: str
) -> None:
    (problem,) = problems.cross_product(
        (2,), (40,), (16,), (4,), (2,), ("bfloat16",), (mask,), (phase,)
    )
    made, again, other = (inputs.make_inputs(problem, seed) for seed in (0, 0, 1))
    planned = Problem.of(made.q, made.k, made.v, made.mask, training=problem.training)
    assert planned == problems.as_planned(problem)
    assert mx.array_equal(made.q, again.q)
    assert not mx.array_equal(made.q, other.q)
    words = problems.words_of(problem)
    assert (words["mask"], words["phase"], words["length"]) == (mask, phase, 40)


@pytest.mark.parametrize("phase", problems.PHASES)
def test_the_check_sees_a_wrong_element(phase: str) -> None:
    (problem,) = problems.cross_product(
        (1,), (48,), (16,), (2,), masks=("causal",), phases=(phase,)
    )
    made = inputs.make_inputs(problem)
    truth = check.make_check(problem, made)

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=made.scale, mask=made.mask)

    def error(wrong: float) -> float:
        def wrongly(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
            return attend(q, k, v) * mx.where(mx.arange(16) == 3, 1 + wrong, 1.0)

        return truth.error(check.run_phase(problem, wrongly, made, truth.cotangent))

    budget = check.error_budget(problem, truth, None)
    assert error(0.0) <= budget
    assert error(1e-2 if multiplies_as_tf32 else 1e-3) > budget
    assert not error(math.nan) <= budget


def in_ten_bits(x: mx.array) -> mx.array:
    """Rounded to 10 bits after the leading one, as TF32 has."""
    step = mx.power(2.0, mx.floor(mx.log2(mx.abs(x))) - 10)
    return x + mx.stop_gradient(mx.round(x / step) * step - x)


@needs_float32
@pytest.mark.parametrize("length", [16, 24, 48])
@pytest.mark.parametrize("phase", problems.PHASES)
def test_float32_may_be_tf32_where_the_device_multiplies_so(
    phase: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (problem,) = problems.cross_product((1,), (length,), (16,), (2,), phases=(phase,))
    made = inputs.make_inputs(problem)

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        # Rounded after the scale, and before weights are divided by their sum, unlike in the
        # check's own run.
        q, k, v = (in_ten_bits(x) for x in (q * made.scale, k, v))
        weights = in_ten_bits(mx.exp(q @ mx.swapaxes(k, 2, 3)))
        return weights @ v / weights.sum(axis=-1, keepdims=True)

    m5 = replace(METAL, nax=True)
    for device, right in ((METAL, False), (m5, True), (replace(m5, tf32=False), False)):
        pretend(monkeypatch, device)
        truth = check.make_check(problem, made)
        error = truth.error(check.run_phase(problem, attend, made, truth.cotangent))
        assert (error <= check.error_budget(problem, truth, None)) == right
    sixteen_bits = replace(problem, dtype="bfloat16")
    assert check.make_check(sixteen_bits, inputs.make_inputs(sixteen_bits)).rounding < 2**-5


def test_a_long_configuration_is_checked_by_some_of_its_queries() -> None:
    problem = Problem(1, 1, 1, 3000, 3000, 16, 16, mask="causal", training=True)
    made = inputs.make_inputs(problem)
    truth = check.make_check(problem, made)
    assert {0, 2999} <= set(truth.rows)
    assert len(truth.rows) < 3000

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=made.scale, mask=made.mask)

    error = truth.error(check.run_phase(problem, attend, made, truth.cotangent))
    assert error <= check.error_budget(problem, truth, None)


def test_a_wrong_route_is_printed_as_wrong_and_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = blockwise.attend
    monkeypatch.setattr(blockwise, "attend", lambda *args: lambda call: right(*args)(call) * 1.01)
    monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
    result = run(*SMALL, "--markdown", str(tmp_path / "grid.md"))
    assert result.exit_code == 1
    assert "WRONG: 0.01" in result.stdout
    assert "WRONG: 0.01" in (tmp_path / "grid.md").read_text()


@pytest.mark.skipif(
    not on_cpu and not multiplies_as_tf32, reason="nothing of ours is faster here than MLX's scores"
)
def test_a_length_that_does_not_fit_is_reported_and_the_others_go_on(
    memory_limit: int, tmp_path: Path
) -> None:
    path = tmp_path / "grid.json"
    result = run(*SMALL, "--length", "64,2048,1000000", "--mask", "causal", "--json", str(path))
    assert result.exit_code == 0, result.stderr
    first, second, third = json.loads(path.read_text())["rows"]
    assert [first[f"{name}_status"] for name in grid.CANDIDATES] == ["ok"] * 3
    assert [second[f"{name}_status"] for name in grid.CANDIDATES] == [
        "out of memory",
        "out of memory",
        "ok",
    ]
    assert [third[f"{name}_status"] for name in grid.CANDIDATES] == ["out of memory"] * 3
    assert second["over_plain"] is None
    assert second["ours_ms"] > 0
    assert "out of memory" in result.stdout


def test_a_closed_pipe_loses_no_file(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mlx_flash_runtime.tools.cli",
        "bench",
        "grid",
        "--batch",
        "1",
        "--length",
        "64",
    ]
    options = ["--phase", "prefill", "--rounds", "3", "--json", "rows.json"]
    process = subprocess.Popen(
        [*command, *options], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()  # as `| head` does
    process.communicate()
    assert len(json.loads((tmp_path / "rows.json").read_text())["rows"]) == 1


def test_every_file_holds_the_same_rows(tmp_path: Path) -> None:
    files = {kind: tmp_path / f"grid.{kind}" for kind in ("json", "csv", "markdown", "svg", "png")}
    options = [
        word for kind in ("json", "csv", "markdown") for word in (f"--{kind}", str(files[kind]))
    ]
    options += ["--plot", str(files["svg"]), "--verbose"]
    result = run(*SMALL, "--length", "16,24,32", *options)
    assert result.exit_code == 0, result.stderr
    loaded = tables.load(files["json"])
    with open(files["csv"], newline="") as file:
        from_csv = list(csv.DictReader(file))
    assert [
        {key: str(value) for key, value in (row | loaded.machine).items()} for row in loaded.rows
    ] == from_csv
    markdown = files["markdown"].read_text()
    for row in loaded.rows:
        assert f"| {row['length']} |" in markdown
        assert f"{row['ours_ms']:g} ±" in markdown
        assert f"{row['ours_ms']:g} ±" in result.stdout
    for text in (markdown, result.stdout, files["svg"].read_text()):
        assert f"MLX {loaded.machine['mlx']}" in text
    for text in (markdown, result.stdout):
        assert "Stability: 1 minus the interquartile range" in text
    assert files["svg"].read_text().count("<svg") == 1
    assert run(*SMALL, "--plot", str(files["png"])).exit_code == 0
    assert files["png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dtype", "float31"), "'float31' is not one of float32, float16, bfloat16"),
        (("--length", "64,x"), "'x' is not a positive whole number"),
        (("--length", "0"), "'0' is not a positive whole number"),
        (("--length", "²"), "'²' is not a positive whole number"),
        (("--mask", "window:0"), "window:0 is not a mask"),
        (("--mask", "sliding"), "sliding is not a mask"),
        (("--phase", "fill"), "'fill' is not one of prefill, decode, train"),
        (("--heads", "8", "--kv-heads", "3"), "3 key heads do not divide 8 query heads"),
        (("--plot", "grid.gif"), "must end in .png or .svg"),
        (("--json", "no/such/folder.json"), "there is no folder"),
    ],
)
def test_bad_options_are_refused_before_anything_is_measured(
    options: tuple[str, ...], message: str
) -> None:
    result = run(*options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_it_says_so_where_flash_attention_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "__version__", "0.30.0")
    result = run(*SMALL)
    assert (result.exit_code, result.stdout) == (2, "")
    off = "error: flash attention is off here: "
    assert result.stderr == f"{off}MLX 0.30.0 is not a version this package knows\n"
    monkeypatch.setenv("MLX_FLASH_DISABLE", "1")
    assert run(*SMALL).stderr == f"{off}MLX_FLASH_DISABLE is set\n"


def test_a_difference_of_two_percent_is_wrong_in_float32() -> None:
    (problem,) = problems.cross_product(
        (1,), (40,), (16,), (2,), masks=("causal",), phases=("train",)
    )
    made = inputs.make_inputs(problem)

    def stock_attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return stock.attention(q, k, v, scale=made.scale, mask=made.mask)

    def off(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return 1.02 * stock_attention(q, k, v)

    def off_in_a_gradient(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        zero = 1e-3 * (v - mx.stop_gradient(v)).sum()
        return stock_attention(q, k, v) + zero

    check.need_right(problem, made, {"stock": stock_attention, "again": stock_attention})
    for candidate in (off, off_in_a_gradient):
        with pytest.raises(check.WrongResult, match="candidate: error "):
            check.need_right(problem, made, {"stock": stock_attention, "candidate": candidate})
