"""A script through standard input: the whole source comes back, rewritten or as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SCRIPT, Run

from flash_integrate.errors import UnreadableSource
from flash_integrate.plan import Status
from flash_integrate.stdin import rewrite_stdin

GUARD_BELOW_MODEL = b"import model\n\nif __name__ == '__main__':\n    print(model.attention(64, 4))\n"


def unchanged(data: bytes) -> bytes:
    return data


def crlf(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def no_final_newline(data: bytes) -> bytes:
    return data.rstrip(b"\n")


@pytest.mark.parametrize("change", [unchanged, crlf, no_final_newline])
def test_it_is_rewritten_as_the_file_would_be(
    flash_integrate: Run, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    data = change(SCRIPT.encode())
    (tmp_path / "run.py").write_bytes(data)
    assert flash_integrate(tmp_path).returncode == 0
    rewritten, decision = rewrite_stdin(data)
    assert rewritten == (tmp_path / "run.py").read_bytes() != data
    assert (decision.status, decision.codemod) == (Status.CHANGED, "argparse-script")


def test_what_was_rewritten_comes_back_as_it_is() -> None:
    rewritten, _ = rewrite_stdin(SCRIPT.encode())
    again, decision = rewrite_stdin(rewritten)
    assert again == rewritten
    assert decision.status is Status.INTEGRATED


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "<stdin>", "no MLX"),
        (b"print('hello')\n", "<stdin>", "no MLX"),
        (SCRIPT.encode(), "tests/run.py", "a test"),
        (b"import mlx.core as mx\nprint(mx.zeros(3))\n", "<stdin>", "no attention is reached from it"),
        (GUARD_BELOW_MODEL, "<stdin>", "no MLX"),  # it stands alone: its local imports are not looked for
    ],
)
def test_what_is_skipped_comes_back_as_it_is_with_the_reason(data: bytes, name: str, reason: str) -> None:
    result, decision = rewrite_stdin(data, name)
    assert result == data
    assert (decision.status, decision.reason) == (Status.SKIPPED, reason)


@pytest.mark.parametrize("data", [b"from mlx_lm import load\nx = = 1\n", b"from mlx_lm import load\nx = '\xe9'\n"])
def test_what_can_not_be_read_is_an_error_with_its_line(data: bytes) -> None:
    with pytest.raises(UnreadableSource) as caught:
        rewrite_stdin(data)
    assert caught.value.line == 2
