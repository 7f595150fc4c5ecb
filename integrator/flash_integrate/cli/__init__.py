"""The command `flash-integrate`."""

from flash_integrate.cli.command_line import main

__all__ = ["main"]
