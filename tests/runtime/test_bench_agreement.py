"""What `mlx-flash compare` reads in outputs, and what it makes of the runs' times."""

from __future__ import annotations

import math
import random
import statistics
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_flash_runtime.tools.bench import agreement, compare, processes, scripts


@pytest.mark.parametrize(
    ("line", "speed"),
    [
        ("Generation: 32 tokens, 123.456 tokens-per-sec", 123.456),
        ("Iter 5: train loss 3.021, 989.5 tokens/s", 989.5),
        ("step 3   loss 2.5   1,234.5 tok/s   peak 12 MB", 1234.5),
        ("Tokens/sec 77.25, Trained Tokens 500", 77.25),
        ("192 tokens in 0.50 s, 384.0 tokens/s with llama", 384.0),
        ("prompt_tps=512.5", 512.5),
        ("Decoding at 41 tokens per second", 41.0),
        ("name  tok/s  tokens\nllama  41  1k", 41.0),
    ],
)
def test_speeds_are_recognised(line: str, speed: float) -> None:
    (values,) = agreement.speeds(line).values()
    assert values == [speed]


def test_lines_of_one_form_are_one_speed() -> None:
    output = "\n".join(f"Iter {i}: loss {5 - i}.5, {100 + i}.0 tokens/s" for i in range(1, 4))
    assert agreement.speeds(output) == {"Iter #: loss #, # tokens/s": [101.0, 102.0, 103.0]}


def test_times_sizes_and_speeds_do_not_count() -> None:
    ours = [
        "loss 2.5000 in 1.25 s, 80 tokens/s, peak 12.5 GB\n12:31:07 | done\n"
        "flash attention: on (mlx)\n"
    ]
    stock = ["loss 2.5001 in 2.50 s, 40 tokens/s, peak 25 GB\n12:33:08 | done\n"]
    found = agreement.compare(ours, stock)
    assert found.agree
    assert found.compared == 2
    assert found.largest == pytest.approx(0.0001 / 2.5001)


@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        ("the cat sat", "the dog sat"),
        ("loss 2.50", "loss 2.60"),
        ("one\ntwo", "one"),
        ("a", "a\nb"),
    ],
)
def test_differences_are_found(ours: str, stock: str) -> None:
    found = agreement.compare([ours], [stock])
    assert found.agree is False
    assert "the outputs differ" in str(found)


def test_lines_that_vary_by_themselves_are_left_out() -> None:
    ours, stock = (
        ["seed 17\nloss 1.0", "seed 99\nloss 1.0"],
        ["seed 3\nloss 1.0", "seed 4\nloss 1.0"],
    )
    found = agreement.compare(ours, stock)
    assert found.agree
    assert (found.compared, found.left_out) == (1, 1)
    assert agreement.compare(["seed 1", "seed 2"], ["seed 3", "seed 4"]).agree is None


def test_a_number_that_varies_by_itself_is_left_out_and_the_rest_of_its_line_is_not() -> None:
    found = agreement.compare(
        ["7 of 9, loss 1.0", "8 of 9, loss 1.0"], ["5 of 9, loss 1.0", "6 of 9, loss 1.0"]
    )
    assert found.agree
    assert (found.compared, found.left_out, found.numbers_left_out) == (1, 0, 1)
    assert not agreement.compare(
        ["7 of 9, loss 1.0", "8 of 9, loss 1.0"], ["5 of 9, loss 1.5", "6 of 9, loss 1.5"]
    ).agree


def test_the_columns_of_a_table_have_the_units_of_their_headings() -> None:
    def table(speed: str, loss: str) -> str:
        rows = f"  \x1b[2m   1\x1b[0m    \x1b[1;32m{loss} ▼\x1b[0m    {speed}      0.1k\n"
        return (
            "  \x1b[1miter   train_loss     tok/s     tokens\x1b[0m\n" + rows + "Iter 1: loss 3.5\n"
        )

    assert list(agreement.speeds(table("1,429", "11.408")).values()) == [[1429.0]]
    assert agreement.compare([table("1,429", "11.408")], [table("825", "11.408")]).agree
    assert not agreement.compare([table("825", "11.408")], [table("825", "11.608")]).agree
    milliseconds = "length   by hand ms   mlx ms   mean |out|\n{}   {}   0.8   0.25"
    assert agreement.compare([milliseconds.format(64, 0.7)], [milliseconds.format(64, 0.9)]).agree
    assert not agreement.compare(
        [milliseconds.format(64, 0.7)], [milliseconds.format(65, 0.7)]
    ).agree


@pytest.mark.parametrize("form", ["| {} | {} |", "|{}|{}|", "{} | {}", "{}  {}"])
def test_cells_of_a_table(form: str) -> None:
    table = "\n".join([form.format("step", "took ms"), form.format(1, "{}")])
    assert agreement.compare([table.format(2.5)], [table.format(31.5)]).agree


def test_the_blanks_of_a_column_do_not_count() -> None:
    speeds = [f"step  2 {speed:8.1f} tok/s  peak 9 MB" for speed in (108.1, 79.0)]
    assert agreement.compare(speeds[:1], speeds[1:]).agree
    losses = [f"step  2 {loss:9.4f} | {loss:<9.4f} |" for loss in (10.0001, 9.9999)]
    assert agreement.compare(losses[:1], losses[1:]).agree
    assert not agreement.compare(["loss  9.5"], ["loss 10.5"]).agree


def test_what_the_runtime_says_does_not_count() -> None:
    said = "12:31:07 | flash attention: on (mlx 0.32.4, cpu; block size auto)\nloss 1.0"
    assert agreement.compare([said], ["loss 1.0"]).agree


def test_a_progress_bar_counts_by_what_it_showed_last() -> None:
    assert agreement.compare(["10 of 20\r20 of 20\nend"], ["5 of 20\r20 of 20\nend"]).agree


@given(st.text("ab 1.\n", max_size=40))
def test_equal_outputs_agree(text: str) -> None:
    found = agreement.compare([text, text], [text, text])
    assert found.agree
    assert found.largest == 0


@settings(max_examples=25)
@given(st.lists(st.floats(0.5, 2), min_size=5, max_size=8), st.floats(0.1, 10))
def test_the_interval_holds_the_ratio_and_scales_with_it(
    seconds: list[float], factor: float
) -> None:
    low, high = compare.interval([factor * s for s in seconds], seconds)
    assert low is not None
    assert high is not None
    assert low - 1e-3 <= factor <= high + 1e-3


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_the_interval_of_five_runs_holds_the_true_ratio_19_times_in_20(
    drift: float, skewed: bool
) -> None:
    draw = random.Random(0)
    intervals = []
    for _ in range(100):
        machine = [math.exp(draw.gauss(0, drift)) for _ in range(5)]
        noise = [1 + (draw.expovariate(20) if skewed else draw.gauss(0, 0.03)) for _ in range(10)]
        ours = [1.3 * m * n for m, n in zip(machine, noise[:5], strict=True)]
        intervals.append(
            compare.interval(ours, [m * n for m, n in zip(machine, noise[5:], strict=True)])
        )
    bounds = [(low, high) for low, high in intervals if low is not None and high is not None]
    assert sum(low <= 1.3 <= high for low, high in bounds) >= 92
    # Also where the machine drifts by a third.
    assert statistics.median(high - low for low, high in bounds) < 0.2


def test_four_runs_are_too_few_for_an_interval() -> None:
    assert compare.interval([1.0, 2.0, 1.0, 2.0], [1.0, 2.0, 1.0, 2.0]) == (None, None)


@pytest.mark.parametrize(
    ("gain", "low", "high", "words"),
    [
        (1.2, 1.1, 1.3, "1.20× faster with flash attention; with 95 % confidence between 1.10×"),
        (0.8, 0.7, 0.9, "1.25× slower with flash attention; with 95 % confidence between 1.11×"),
        (1.1, 0.8, 1.2, "no difference shown: with 95 % confidence between 1.25× slower and"),
        (0.92, None, None, "1.09× slower with flash attention; how sure that is takes 5 runs"),
        (1.001, None, None, "as fast with flash attention; how sure"),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(
    gain: float, low: float | None, high: float | None, words: str
) -> None:
    assert compare.verdict({"gain": gain, "low": low, "high": high}).startswith(words)


def test_a_row_of_numbers_alone_is_known_by_those_that_are_whole() -> None:
    table = "Length  Batch  Time s  Tokens/s\n512  8  0.53  1,429\n1024  8  1.1  1,300\n"
    assert agreement.speeds(table) == {"512 8": [1429.0], "1024 8": [1300.0]}
    assert agreement.speeds("123.4 tokens/s") == {"": [123.4]}


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (
            "Prompt: 6 tokens, 164.2 tokens-per-sec\nGeneration: 8 tokens, 301.1 tokens-per-sec\n",
            ["tokens/s: Prompt", "tokens/s: Generation"],
        ),
        ("8 tokens in 0.50 s, 16.0 tokens/s\n", ["tokens/s: N tokens in N s, N tokens/s"]),
        (
            "step 1: train 5.5 tokens/s\nstep 1, test: 6.5 tokens/s\n",
            ["tokens/s: step N: train N tokens/s", "tokens/s: step N test: N tokens/s"],
        ),
        ("512  8  0.53  1,429 tok/s\n123.4 tokens/s\n", ["tokens/s: 512 8", "tokens/s"]),
    ],
)
def test_a_row_of_speeds_is_named_in_words(output: str, names: list[str]) -> None:
    report = {"peak_memory": 1, "routes": {}, "enabled": True}
    runs = [
        (mode, processes.Outcome(1.0, 1, 0, output, "", report))
        for mode in scripts.MODES * (scripts.WARM_UPS + 1)
    ]
    assert [row["quantity"] for row in compare.summary_of(runs)][3:] == names


def test_advice_names_the_script_as_it_was_given(tmp_path: Path) -> None:
    script = tmp_path / "my scripts" / "plain.py"
    script.parent.mkdir()
    script.write_text("print(1)\n")
    found = scripts.find_script([sys.executable, str(script)])
    with pytest.raises(scripts.NotPatched, match=f"flash-integrate '{script}'"):
        list(scripts.measure(found, 1, stdin=None, timeout=60))


def test_the_flag_goes_straight_after_the_script_that_has_it(tmp_path: Path) -> None:
    flagged, plain = tmp_path / "flagged.py", tmp_path / "plain.py"
    flagged.write_text("parser.add_argument('--disable-flash-attention')\n")
    plain.write_text("enable_flash_attention()\n")
    script = scripts.find_script(["python", str(flagged), "score", "--file", "x.py"])
    assert script.without() == [
        "python",
        str(flagged),
        "--disable-flash-attention",
        "score",
        "--file",
        "x.py",
    ]
    script = scripts.find_script(["python", str(plain), "x"])
    assert script.without() == ["python", str(plain), "x"]


def test_a_process_is_measured_and_ended_in_time(tmp_path: Path) -> None:
    code = (
        "import os, sys; x = bytearray(200 << 20); "
        "print(os.environ['MLX_FLASH_DISABLE'], sys.stdin.read())"
    )
    (tmp_path / "in.txt").write_text("hello")
    command = [sys.executable, "-c", code]
    outcome = processes.run(command, disabled=True, stdin=tmp_path / "in.txt", timeout=60)
    assert (outcome.returncode, outcome.stdout) == (0, "1 hello\n")
    assert outcome.peak_bytes > 200 << 20
    assert outcome.seconds > 0
    assert outcome.report is None
    with pytest.raises(processes.TimedOut):
        processes.run(
            [sys.executable, "-c", "while True: pass"], disabled=False, stdin=None, timeout=0.2
        )


def test_a_launcher_that_ends_well_without_its_script_is_heard() -> None:
    launcher = "import sys; print('exec: permission denied', file=sys.stderr)"
    found = scripts.find_script([sys.executable, "-c", launcher])
    with pytest.raises(scripts.NotPatched, match=r"\n  exec: permission denied$"):
        list(scripts.measure(found, 1, stdin=None, timeout=60))
