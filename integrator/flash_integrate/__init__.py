"""flash-integrate: puts the Flash Attention runtime into a repo of MLX scripts, as a diff to
review."""

__version__ = "0.1.0"
