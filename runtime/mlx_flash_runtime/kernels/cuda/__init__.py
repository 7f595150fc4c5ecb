"""Attention on the tensor cores of NVIDIA GPUs, for what MLX has no fused kernel for, or a slower
one.

Three kernels, each a module that writes its call as CUDA text and launches it, with the sizes of
its blocks beside it:

- `attention`, of many queries: `attention_tiles`, `device/attention.cuh` (products of warps) and
  `device/warpgroup_attention.cuh` (products of warpgroups, on Hopper alone);
- `gradient`, its backward pass: `gradient_tiles`, `device/gradient.cuh` and
  `device/warpgroup_gradient.cuh`;
- `few_queries`, of a step of decoding or a verified draft: `device/few_queries.cuh`.

They have in common `hardware`, what they count on in a GPU, and `arguments`, how a problem's types
and mask are written in CUDA. `launcher` runs the first and the last as MLX's function, call after
call; `training` runs the first two as an operation with a gradient. `compiling/` makes a kernel of
a text and keeps it.

`device/` is what runs on the GPU. Its files include those that stand before them here:

- `instructions`: the assembly, a function each; `rows`: numbers, and how they are copied;
- `products` and `warpgroup_products`: tiles in shared memory and products of them; `results`: the
  way back to memory;
- `softmax`: masks and online softmax; `weights` and `sides`: the same in the backward pass;
- `folded_rows`, `key_readers` and `parts`: rows of several heads, quantized keys, and results of
  several blocks, for few queries;
- the kernels themselves. `prelude` stands in the place of MLX's own header.
"""
