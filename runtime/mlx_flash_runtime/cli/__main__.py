"""`python -m mlx_flash_runtime.cli`, where the command itself is not installed."""

from . import main

main()
