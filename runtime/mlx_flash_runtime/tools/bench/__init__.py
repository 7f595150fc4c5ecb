"""Measuring: attention by shape, whole workflows, a script with and without the patch, and how
results are shown.

- Attention by shape: `problems` are the shapes, `inputs` their data, `check` says whether results
  are right, `timing` times candidates in turns; `grid` makes rows of them, `routes` those of
  the named calls of `cases`, `tune` the fastest route of each class. `routes_taken`, `machine` and
  `numbers` are what every row says.
- Workflows: `models`, the `workloads` that they run, `variants` of attention in them,
  `model_check`, and `workflow`, which makes rows of them.
- A script: `scripts` and `processes` run it, `compare` and `agreement` hold its runs against each
  other.
- What is shown: a result is a `Document` of `tables`; `columns` and `definitions` are those of its
  kind, `page` is HTML, `plots` the pictures (`plot_grid`, `plot_axes`).
"""
