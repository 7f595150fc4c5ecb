"""The command `mlx-flash`: measures, explains and diagnoses. The rest of the package imports
nothing of it."""
