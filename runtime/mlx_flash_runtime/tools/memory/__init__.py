"""How much memory a model needs for a step of its work, and what fits: `mlx-flash plan`.

A step is traced with shapes alone (`graph`), its attention as it is planned for the device
(`in_place`), by operations that stand for kernels (`stand_ins`), its compiled functions as one
operation (`compiled`), and evaluated as MLX would do it, counting bytes (`evaluation`).
"""
