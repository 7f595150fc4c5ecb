"""`python -m mlx_flash_runtime.tools.cli`, where the command itself is not installed."""

from . import main

main()
