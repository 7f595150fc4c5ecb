"""Files in the format of `setup.cfg` and `.editorconfig`."""

from __future__ import annotations

import configparser
import re


def read_ini(text: str) -> configparser.RawConfigParser:
    """The sections and options of a file. Raises configparser.Error."""
    parser = configparser.RawConfigParser(strict=False)
    # The time that the parser takes for a line grows with the square of the blanks in it.
    parser.read_string(re.sub(r"(?<=\S)[^\S\n]+", " ", text))
    return parser
