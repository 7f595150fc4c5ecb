"""Files of the runtime that are none, or hold what nobody would write: one line, and the program
goes on."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from patched_program import PROGRAM, run

from mlx_flash_runtime.environment import whole_files
from mlx_flash_runtime.planning import calibration

NOT_REGULAR = "it is not a regular file"


def as_folder(path: Path) -> None:
    path.mkdir()


def as_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": as_folder,
    "socket": as_socket,
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "/dev/null": lambda path: path.symlink_to("/dev/null"),
    "a link to a pipe": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A name at which there is something other than a file."""
    path = tmp_path / "named.json"
    request.param(path)
    return path


def kind_of(path: Path) -> int:
    return stat.S_IFMT(path.lstat().st_mode)


def test_a_calibration_that_is_no_file(no_file: Path, tmp_path: Path) -> None:
    done = run(PROGRAM, tmp_path, MLX_FLASH_CALIBRATION=no_file)
    assert (done.returncode, done.stdout) == (0, "done\n")
    ignored, _ = done.stderr.splitlines()  # the other is that flash attention is on
    assert ignored == f"flash attention: {no_file} is ignored: {NOT_REGULAR}"


def test_a_report_to_what_is_no_file(no_file: Path, tmp_path: Path) -> None:
    before = kind_of(no_file)
    done = run(PROGRAM, tmp_path, MLX_FLASH_REPORT=no_file)
    assert (done.returncode, done.stdout) == (0, "done\n")
    # That flash attention is on is said before where a call took a route of ours.
    line = done.stderr.splitlines()[-1]
    assert line.startswith("flash attention: the report was not written: ")
    assert line.endswith(f"{NOT_REGULAR}: '{no_file}'")
    assert kind_of(no_file) == before


def test_what_is_no_file_is_neither_replaced_nor_deleted(
    no_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kind_of(no_file)
    monkeypatch.setenv("MLX_FLASH_CALIBRATION", str(no_file))
    for change in (
        lambda: calibration.save({}),
        calibration.forget,
        lambda: whole_files.write(no_file, b""),
    ):
        with pytest.raises(OSError, match=NOT_REGULAR):
            change()
    assert kind_of(no_file) == before


def test_a_pipe_with_a_reader_is_no_file_either(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    done = run(PROGRAM, tmp_path, MLX_FLASH_REPORT=pipe, MLX_FLASH_CALIBRATION=pipe)
    assert os.read(end, 1) == b""
    os.close(end)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert done.stderr.count(NOT_REGULAR) == 2


@pytest.mark.parametrize(
    "name", ["/dev/stdout", "/dev/stderr", "/dev/null", "/dev/fd/1", "/proc/self/mem"]
)
def test_a_report_to_the_system_s_own_names(name: str, tmp_path: Path) -> None:
    done = run(PROGRAM, tmp_path, MLX_FLASH_REPORT=name)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "the report was not written" in done.stderr


@pytest.mark.parametrize("name", ["/dev/stdout", "output", "link"])
def test_a_report_does_not_take_the_program_s_output_away(name: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("output")
    done = run(PROGRAM, tmp_path, shell='exec "$@" >output', MLX_FLASH_REPORT=name)
    assert done.returncode == 0
    assert (tmp_path / "output").read_text() == "done\n"
    assert "the program's own output goes there" in done.stderr


def test_a_report_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    # No file may grow: as on a full disk, with another word.
    done = run(
        PROGRAM,
        tmp_path,
        shell='ulimit -f 0; trap "" XFSZ; exec "$@"',
        MLX_FLASH_REPORT="report.json",
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "the report was not written: [Errno 27]" in done.stderr


def nested(opening: str, closing: str, inside: str = "") -> bytes:
    return (opening * 100_000 + inside + closing * 100_000).encode()


def with_class(**entry: object) -> bytes:
    whole = {"route": "unfused", "gain": 1.0, "ms": {"decode": {"unfused": 1.0}}, **entry}
    return json.dumps({"format": 1, "classes": {"a": whole}}).encode()


CONTENTS = {
    "lists in lists": nested("[", "]"),
    "objects in objects": nested('{"a":', "}", "1"),
    "half of it": nested("[", ""),
    "no UTF-8": b'{"format": 1, "classes": {"\xff\xfe": 1}}',
    "UTF-16 without a mark": '{"format": 1}'.encode("utf-16-le")[1:],
    "a long integer": b'{"format": ' + b"9" * 100_000 + b"}",
    "an integer beyond all floats": with_class(gain=10**400),
    "a time beyond all floats": with_class(ms={"decode": {"unfused": 10**400}}),
    "no number": with_class(gain=float("nan")),
    "infinity": with_class(ms={"decode": {"unfused": float("inf")}}),
    "a long word": with_class(route=["x" * 100_000]),
    "another long word": with_class(gain="x" * 100_000),
    "a format that is long": json.dumps({"format": "x" * 100_000}).encode(),
    "a list": b"[]",
    "classes in a list": b'{"format": 1, "classes": [1]}',
    "a number": b"1",
    "zeros": bytes(1000),
    "nothing": b"",
}


@pytest.fixture
def calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "calibration.json"
    monkeypatch.setenv("MLX_FLASH_CALIBRATION", str(path))
    return path


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_what_is_no_calibration_is_a_warning(
    content: bytes, calibrated: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calibrated.write_bytes(content)
    assert calibration.read() == {}
    [record] = caplog.records
    assert record.getMessage().startswith(
        f"flash attention: {calibrated} is ignored, mlx-flash tune writes it anew: "
    )
    assert len(record.getMessage()) < len(str(calibrated)) + 300


def test_a_deep_calibration_does_not_end_the_program(calibrated: Path, tmp_path: Path) -> None:
    calibrated.write_bytes(CONTENTS["lists in lists"])
    done = run(PROGRAM, tmp_path, MLX_FLASH_CALIBRATION=calibrated)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "recursion" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_huge_calibration_is_not_read(calibrated: Path, tmp_path: Path) -> None:
    with open(calibrated, "wb") as file:
        file.truncate(2**40)
    done = run(PROGRAM, tmp_path, MLX_FLASH_CALIBRATION=calibrated)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert f"{calibrated} is ignored: it has more than 4,194,304 bytes" in done.stderr


def test_a_user_without_a_home(tmp_path: Path) -> None:
    nobody = "import os\nos.environ.pop('HOME')\nos.environ.pop('XDG_CACHE_HOME', None)\n"
    no_entry = "import pwd\ndef unknown(uid):\n    raise KeyError(uid)\npwd.getpwuid = unknown\n"
    done = run(nobody + no_entry + PROGRAM, tmp_path, MLX_FLASH_ROUTE="blockwise")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_what_the_deleted_folder_had_is_no_reason_to_end(tmp_path: Path) -> None:
    gone = "import os\nos.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')\n"
    done = run(
        gone + PROGRAM,
        tmp_path,
        MLX_FLASH_REPORT="report.json",
        MLX_FLASH_CALIBRATION="calibration.json",
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "the report was not written" in done.stderr
