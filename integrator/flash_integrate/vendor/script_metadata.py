"""The block `# /// script` in which a script lists its own dependencies, for `uv run` and the like
(PEP 723)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flash_integrate.project.toml import NotToml, read_toml
from flash_integrate.vendor.origin import Origin
from flash_integrate.vendor.requirement import PACKAGE, is_mlx, name_of, requirement_beside

_OPENING, _CLOSING = "# /// script", "# ///"


@dataclass(frozen=True)
class Block:
    """What such a block requires; nothing if it is no TOML, as whoever runs the script is told."""

    requirements: tuple[str, ...]

    def lacking(self, origin: Origin) -> str | None:
        """The runtime, from `origin`, as it should stand beside MLX; None if it does already, or
        if there is no MLX."""
        mlx = [item for item in self.requirements if is_mlx(name_of(item))]
        return (
            requirement_beside(mlx, origin.requirement)
            if mlx and PACKAGE not in map(name_of, self.requirements)
            else None
        )


def read_block(data: bytes) -> Block | None:
    """The block of a script; None if it has none."""
    block = _first_block(data.decode(errors="replace").replace("\r\n", "\n").split("\n"))
    if block is None:
        return None
    try:
        listed = read_toml(re.sub("^# ?", "", "\n".join(block), flags=re.MULTILINE)).get(
            "dependencies"
        )
    except NotToml:
        listed = None
    return Block(
        tuple(item for item in listed if isinstance(item, str)) if isinstance(listed, list) else ()
    )


def _first_block(lines: list[str]) -> list[str] | None:
    """The lines of the first block, without the two around them."""
    block: list[str] | None = None
    for line in lines:
        if line == _CLOSING and block:
            return block
        if line == _OPENING and block is None:
            block = []
        elif block is not None:
            if line == "#" or line.startswith("# "):
                block.append(line)
            else:
                block = None
    return None
