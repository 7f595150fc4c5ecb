"""Attention on the tensor cores of NVIDIA GPUs, for what MLX has no fused kernel for, or a slower
one."""
