"""Attention on the CPU in C++: an operation of MLX, compiled on this machine against the installed
MLX.

`toolchain` finds what a build needs, `cache` keeps what it made, `build` makes it, `library` loads
it into this process.
"""
