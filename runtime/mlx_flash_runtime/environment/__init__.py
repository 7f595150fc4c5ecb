"""What surrounds the program: variables, log, files of our own, and whether MLX can be loaded.
Imports nothing of ours."""
