"""Puts the planner in the place of the attention functions of MLX and mlx-lm, and takes it out
again."""
