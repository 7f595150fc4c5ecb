"""The package's one logger."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("mlx_flash_runtime")


def announce(message: str) -> None:
    """Logs `message` as information; where nobody has set up logging, it goes to stderr as warnings would anyway."""
    if logger.hasHandlers():
        logger.info(message)
    else:
        print(message, file=sys.stderr)
