"""From CUDA text to a kernel that can be launched.

`source` makes the text as MLX would make it, `nvrtc` has it compiled, `cache` puts the result where
MLX looks for it, and `loading` gives the kernel to whoever launches it.
"""
