"""The planner that patched calls go through, while MLX is patched."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .planner import Planner

planner: Planner | None = None
