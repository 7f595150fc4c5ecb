"""Our own kernels for Metal, where MLX has none. They are text for `mx.fast.metal_kernel`: MLX has
Apple's compiler make them when they are first used, once in a process."""
