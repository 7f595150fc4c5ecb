"""A source file as bytes and as text: what was read is what a rewrite must give back."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flash_integrate.errors import UnreadableSource
from flash_integrate.python.processes import in_its_own_process
from flash_integrate.python.syntax import walk

# A syntax tree takes up to 250 bytes for each byte of source.
_LARGEST = 2 << 20
# Python 3.10 overflows its stack, which ends the process, at 200,000 calls and attributes of each
# other.
_MAY_OVERFLOW = 200_000 if sys.version_info < (3, 11) else _LARGEST


@dataclass(frozen=True)
class Source:
    """A Python file: `path` as it is shown to the user, `data` its bytes, `problem` why they could
    not be read."""

    path: Path
    data: bytes
    problem: str = ""

    @cached_property
    def encoding(self) -> str:
        """The encoding that the BOM or the coding cookie declares.

        Raises:
            UnreadableSource: the cookie names no known encoding, or contradicts the BOM.
        """
        try:
            return tokenize.detect_encoding(io.BytesIO(self.data).readline)[0]
        except SyntaxError as error:
            raise UnreadableSource(str(error), line=1) from error

    @cached_property
    def text(self) -> str:
        """The decoded text, newlines as they are.

        Raises:
            UnreadableSource: the file could not be read, or its bytes do not fit its encoding.
        """
        if self.problem:
            raise UnreadableSource(self.problem)
        try:
            return self.data.decode(self.encoding)
        except UnicodeDecodeError as error:
            line = self.data.count(b"\n", 0, error.start) + 1
            raise UnreadableSource(
                f"not valid {self.encoding}: {error.reason}", line=line
            ) from error
        except LookupError as error:  # a cookie may also name rot13, or zlib
            raise UnreadableSource(f"{self.encoding} is no encoding of text", line=1) from error

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree.

        Raises:
            UnreadableSource: the file is not valid Python, is nested deeper than the parser reads,
                or is larger than a program.
        """
        try:
            return self.parsed
        except SyntaxError as error:
            from flash_integrate.python.newer_syntax import in_older_syntax

            if (older := in_older_syntax(self.text)) is not None:
                return parse(older)
            raise UnreadableSource(error.msg, line=error.lineno or 1) from error
        except ValueError as error:
            raise UnreadableSource(str(error), line=1) from error
        except (RecursionError, MemoryError) as error:
            raise UnreadableSource("nested too deeply to be parsed", line=1) from error

    @cached_property
    def parsed(self) -> ast.Module:
        """The syntax tree of a file that is in the syntax of the Python that runs this.

        Raises:
            SyntaxError, ValueError, RecursionError, MemoryError: it is not, as `ast.parse` says.
            UnreadableSource: it can't be decoded, or is larger than a program.
        """
        return parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree. A walk is what most questions cost: it is made once."""
        return walk(self.tree)

    def shown_line(self, line: int | None) -> int | None:
        """The line that a user sees for a line of the text: of a script the same."""
        return line

    def lines(self) -> list[bytes]:
        """The file's lines with their endings, split where Python splits them (not at form
        feeds)."""
        return split_lines(self.data)

    def text_lines(self) -> list[str]:
        """The lines decoded, endings and all."""
        return [line.decode(self.encoding.removesuffix("-sig")) for line in self.lines()]


def parse(text: str) -> ast.Module:
    """The syntax tree of a text, if that is no larger than a program.

    Raises:
        UnreadableSource: it is too large, or so deep that the parser would end this process.
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
    """
    if len(text) > _LARGEST:
        raise UnreadableSource(
            f"more than {_LARGEST >> 20} MiB of Python; data belongs in files of its own", line=1
        )
    if len(text) > _MAY_OVERFLOW and not in_its_own_process(60, _can_be_parsed, text):
        raise UnreadableSource("nested too deeply to be parsed", line=1)
    return _parse(text)


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        # `"\d"` in a user's file is not this program's to warn about.
        warnings.simplefilter("ignore")
        return ast.parse(text)


def _can_be_parsed(text: str) -> bool:
    """True, also for what is no Python: that is told from the error."""
    with suppress(Exception):
        _parse(text)
    return True


def split_lines(data: bytes) -> list[bytes]:
    """Splits at `\\n`, `\\r\\n` and `\\r` alone, endings kept."""
    return re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", data)
