import os
import sys

# `python -m` looks for modules in the current folder first, and a repo there may hold a click.py:
# nothing of it is to run. Python leaves the folder out itself when started with -P or -I. Where
# this package itself comes from the current folder, so may what it needs.
_looks_here = not (sys.flags.isolated or getattr(sys.flags, "safe_path", False))
if _looks_here and sys.path[0] != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
    del sys.path[0]

from flash_integrate.cli.command_line import main  # noqa: E402  # only now

if __name__ == "__main__":
    main()
